"""How near updates in a chip's integers are to e-prop's in float: a table and a picture.

python examples/chip_updates.py FILE.png
"""

import sys

import matplotlib
import matplotlib.pyplot as plt

from eprop.chips import loihi_agreement, reckon, reckon_agreement

matplotlib.use("Agg")


def main(path: str) -> None:
    reckon_rates, exponents = (8, 12, 16, 20), (-7, -6, -5, -4, -3)
    panels = {
        "ReckOn, LIF": {
            f"$2^{{{rate - 32}}}$": reckon_agreement(reckon.ReckOn(regul_mode=0, lr_p_winp=rate))
            for rate in reckon_rates
        },
        "Loihi, LIF": {f"$2^{{{e}}}$": loihi_agreement("lif", e) for e in exponents},
        "Loihi, ALIF": {f"$2^{{{e}}}$": loihi_agreement("alif", e) for e in exponents},
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True, layout="constrained")
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, agreement in lines.items():
            axis.plot(agreement.cosine, label=name)
            last, size = agreement.cosine[-1], agreement.size[-1]
            print(f"{title:12} {name:10} cosine {last:5.3f}  size {size:5.3f}  to nothing {agreement.nothing:6.4f}")
        axis.set(title=title, xlabel="step", ylim=(0, 1))
        axis.legend(title="learning rate", fontsize="small", loc="lower right")
    axes[0].set_ylabel("cosine (integer, float)")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
