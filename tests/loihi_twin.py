"""Loihi in plain Python integers, one neuron and synapse at a time: shares no code with the package."""

from fractions import Fraction

ONE = 2**53


def clip(x, low, high):
    return max(low, min(high, x))


def toward_zero(x, factor):
    return (abs(x) * factor >> 12) * (1 if x >= 0 else -1)


def as_double(x):
    """A fraction rounded to 53 significant bits; Python's own conversion of a ratio is correctly rounded."""
    return Fraction(float(x)) if abs(x) < 2**1000 else x


class Twin:
    """`v`: the variant as a dictionary; `connections`: dictionaries, see `tests/test_chips_loihi.py`."""

    def __init__(self, lif, v, n, connections):
        self.lif, self.v, self.n, self.parts = lif, v, n, connections
        self.u, self.volt, self.t = [0] * n, [0] * n, 0
        for c in connections:
            c["w"] = [[self.start(c, w) for w in row] for row in c["w"]]  # [pre][post]
            pre = len(c["w"])
            c["a"], c["x"], c["y"] = [0] * n, [[0] * pre for _ in range(2)], [[0] * n for _ in range(3)]
            c["xt"], c["yt"] = [0] * pre, [0] * n

    def start(self, c, w):
        low, high = {"mixed": (-256, 255), "excitatory": (0, 255), "inhibitory": (-255, 0)}[c["sign_mode"]]
        if c["rule"] is None:
            w = clip(w, low, high)
        unit = 2 ** (8 - c["bits"] + (c["sign_mode"] == "mixed"))
        if c["sign_mode"] == "inhibitory" or (self.v["truncation"] == "towards-zero" and c["sign_mode"] == "mixed"):
            return -(-w // unit * unit) if w < 0 else w // unit * unit
        return w // unit * unit

    def neuron(self, j, a):
        lif, v = self.lif, self.v
        u = toward_zero(self.u[j], 4096 - lif["du"] - (v["current_decay"] == "du+1"))
        add = a << 6
        if v["dendrite"] == "wrapped":
            add = (add + 2**21) % 2**22 - 2**21
        u += add
        if v["current_wrap"] == "twos-complement":
            u = (u + 2**23) % 2**24 - 2**23
        elif u > 2**23:
            u -= 2**24
        elif u <= -(2**23):
            u += 2**24
        m, e = lif["bias_mant"][j], lif["bias_exp"][j]
        bias = m << e if e >= 0 else m >> -e
        volt = clip(toward_zero(self.volt[j], 4096 - lif["dv"]) + u + bias, -(2**23) + 1, 2**23 - 1)
        z = volt > lif["vth"] << 6
        self.u[j], self.volt[j] = u, 0 if z else volt
        return z

    def sums(self, c, spikes):
        shift = c["exp"]
        move = lambda x: x << shift if shift >= 0 else x >> -shift  # noqa: E731
        if self.v["dendrite"] == "clipped" and shift >= 0:
            move = lambda x: clip(x << shift, -(2**15) + 1, 2**15 - 1)  # noqa: E731
            return [sum(move(row[j]) for row, s in zip(c["w"], spikes, strict=True) if s) for j in range(self.n)]
        columns = [[row[j] for row, s in zip(c["w"], spikes, strict=True) if s] for j in range(self.n)]
        if self.v["exponent"] == "each-weight" and shift < 0:
            return [sum(map(move, column)) for column in columns]
        return [move(sum(column)) for column in columns]

    def step(self, inputs, sent):
        self.t += 1
        arrived = [sum(c["a"][j] for c in self.parts) for j in range(self.n)]
        z = [self.neuron(j, arrived[j]) for j in range(self.n)]
        for n, c in enumerate(self.parts):
            pre = inputs if n == 0 else z
            c["a"] = self.sums(c, pre)
            if c["rule"] is not None:
                self.learn(c, pre, z, sent)
        return arrived, z

    def learn(self, c, pre, post, sent):
        r, draws = c["rule"], c["draws"]
        number = lambda name, index, n: draws[name][index] if draws[name].ndim == 1 else draws[name][index][n]  # noqa
        length = r["t_epoch"]
        k = (self.t - 1) % length + 1
        for side, spikes, times in (("x", pre, c["xt"]), ("y", post, c["yt"])):
            for i, s in enumerate(spikes):
                if s and times[i]:
                    for n in range(len(c[side])):
                        whole, part = r[f"{side}_impulse"][n]
                        R = 0 if side == "x" else int(number("y_impulse", 2 * self.t - 1, n))
                        c[side][n][i] = clip(c[side][n][i] + whole + (R < part), 0, 127)
                if s:
                    times[i] = k
        if r["factors"] == 3:
            c["y"] = [list(row) for row in sent]
        if k < length:
            return
        seen = {side: self.history(c, side, number) for side in "xy"}
        epoch = self.t // length
        new = {name: self.apply(c, name, products, seen, epoch) for name, products in r["products"].items()}
        for name, value in new.items():
            c[name] = value
        c["x"] = [row[-1] for row in seen["x"]]
        if r["factors"] == 2:
            c["y"] = [row[-1] for row in seen["y"]]
        c["hist"] = seen
        c["xt"], c["yt"] = [0] * len(c["xt"]), [0] * self.n

    def history(self, c, side, number):
        """[trace][step][neuron]"""
        r, result = c["rule"], []
        for n, values in enumerate(c[side]):
            whole, part = r[f"{side}_impulse"][n]
            rows, values = [], list(values)
            for k in range(1, r["t_epoch"] + 1):
                for i, x in enumerate(values):
                    p = as_double(x * r[f"{side}_decay"][n])
                    low = p.numerator // p.denominator
                    sent = side == "y" and r["factors"] == 3
                    if k == 1 or sent or self.v["trace_decay"] != "once-an-epoch":
                        x = low + (Fraction(int(number(f"{side}_decay", 2 * self.t, n)), ONE) < p - low)
                    if c[f"{side}t"][i] == k:
                        x = clip(x + whole + (int(number(f"{side}_impulse", 2 * self.t, n)) < part), 0, 127)
                    values[i] = x
                rows.append(list(values))
            result.append(rows)
        return result

    def apply(self, c, name, products, seen, epoch):
        pre = len(c["w"])
        return [[self.synapse(c, name, products, seen, epoch, i, j) for j in range(self.n)] for i in range(pre)]

    def synapse(self, c, name, products, seen, epoch, i, j):
        v, r = self.v, c["rule"]
        acc = c[name][i][j] * 128
        for dep, mantissa, exponent, k, factors in products:
            q, bits = 1, 0
            if dep == "u":
                q, at = int(epoch % 2**k == 0), r["t_epoch"]
            else:
                at = c["xt"][i] if dep == "x0" else c["yt"][j]
                q = int(at > 0)
            for var, constant, sign in factors:
                width = {"0": 1}.get(var[-1], 7) if var[0] in "xy" else 9
                if var in ("x0", "y0"):
                    f = int((c["xt"][i] if var == "x0" else c["yt"][j]) > 0)
                elif var[0] in "xy":
                    f = seen[var[0]][int(var[1]) - 1][max(at, 1) - 1][i if var[0] == "x" else j]
                else:
                    f = c[var][i][j]
                f += constant
                if sign:
                    f = (f > 0) - (f < 0)
                q = (q * clip(f, -(2**width), 2**width - 1) + 2**31) % 2**32 - 2**31
                bits += width
            q = (q * mantissa + 2**31) % 2**32 - 2**31
            if v["trace_product"] != "exact":
                q >>= max(0, bits + {"1/8": 4, "1/4": 3}[v["trace_product"]] - 15)
            q = ((q << (exponent + 7)) + 2**31) % 2**32 - 2**31
            acc = clip(acc + clip(q, -32769, 32767), -32769, 32767)
        mode = c["sign_mode"]
        if name == "d" or (name == "w" and mode == "excitatory"):
            acc = max(acc, 0)
        elif name == "w" and mode == "inhibitory":
            acc = min(acc, 0)
        unit = 128
        if name == "w" and v["learned_weight"] == "rounded":
            unit *= 2 ** (8 - c["bits"] + (mode == "mixed"))
        R = Fraction(int(c["draws"]["w"][epoch]), ONE)
        value = (acc // unit + (R < Fraction(acc % unit, unit))) * (unit // 128)
        low, high = {"mixed": (-256, 255), "excitatory": (0, 255), "inhibitory": (-255, 0)}[mode]
        low, high = {"w": (low, high), "t": (-257, 255), "d": (0, 255)}[name]
        return clip(value, low, high // (unit // 128) * (unit // 128))
