"""The workshop: tasks, training runs, experiments, pictures and the program, built on the library beneath it.

It uses only what the library's packages show. Nothing of the library imports from here.
"""
