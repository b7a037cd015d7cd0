"""PyTorch, eager: the same network as a Python loop over time, differentiated by autograd (BPTT).

python torch_peer.py PROBLEM.npz ANSWER.npz ROUNDS
"""

import json
import math
import sys
import time

import numpy as np
import torch


class Spike(torch.autograd.Function):
    """A step, with the triangular pseudo-derivative times `scale`."""

    @staticmethod
    def forward(ctx, v_scaled, scale):
        ctx.save_for_backward(v_scaled, scale)
        return (v_scaled > 0).to(v_scaled.dtype)

    @staticmethod
    def backward(ctx, *gradients):
        v_scaled, scale = ctx.saved_tensors
        return 0.3 * scale * torch.clamp(1 - v_scaled.abs(), min=0) * gradients[0], None


def spiking(w_in, w_rec, w_out, inputs, targets, beta):
    alpha, rho, kappa, v_th, refractory = math.exp(-1 / 20), math.exp(-1 / 200), math.exp(-1 / 20), 0.6, 2
    v = b = z = z_bar = torch.zeros(inputs.shape[1], w_rec.shape[0])
    r = torch.zeros_like(v)
    loss = torch.zeros(())
    for x, target in zip(inputs, targets, strict=True):
        v = alpha * v + x @ w_in + z @ w_rec - v_th * z
        ready = (r == 0).to(v.dtype)
        z = ready * Spike.apply((v - v_th - beta * b) / v_th, ready)
        b = rho * b + z
        r = torch.clamp(r + refractory * z.detach() - 1, 0, refractory)
        z_bar = kappa * z_bar + z
        loss = loss + 0.5 * ((z_bar @ w_out - target) ** 2).sum()
    return loss


def lstm(w_in, w_rec, w_out, inputs, targets):
    c = h = torch.zeros(inputs.shape[1], w_rec.shape[0])
    loss = torch.zeros(())
    for x, target in zip(inputs, targets, strict=True):
        i, g, f, o = (x @ w_in + h @ w_rec).chunk(4, dim=1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        loss = loss + 0.5 * ((h @ w_out - target) ** 2).sum()
    return loss


def main(problem: str, answer: str, rounds: str) -> None:
    with np.load(problem) as given:
        model = str(given["model"])
        shapes = {name: given[name].shape for name in ("w_in", "w_rec", "w_out")}
        flat = {name: given[name].reshape(given[name].shape[0], -1) for name in shapes}
        weights = {name: torch.tensor(w, requires_grad=True) for name, w in flat.items()}
        inputs, targets = torch.tensor(given["inputs"]), torch.tensor(given["targets"])
    seconds = []
    for _ in range(int(rounds) + 1):
        for w in weights.values():
            w.grad = None
        start = time.perf_counter()
        arguments = (*weights.values(), inputs, targets)
        loss = lstm(*arguments) if model == "lstm" else spiking(*arguments, beta=0.1 if model == "alif" else 0.0)
        loss.backward()
        seconds.append(time.perf_counter() - start)
    gradients = {name: w.grad.numpy().reshape(shapes[name]) for name, w in weights.items()}
    if model != "lstm":
        n = shapes["w_rec"][0]
        gradients["w_rec"][np.arange(n), 0, np.arange(n)] = 0  # no autapses
    np.savez(answer, **gradients)
    what = "BPTT, an eager loop over time"
    print(json.dumps({"version": torch.__version__, "seconds": seconds[1:], "kind": "bptt", "what": what}))


if __name__ == "__main__":
    main(*sys.argv[1:])
