"""ReckOn in plain Python integers, one register at a time: shares no code with the package."""


class Bits:
    """A shift register, one bit after the other; `ages[i]`: which past bit register bit i holds."""

    def __init__(self, n, a, ages, seed):
        self.n, self.a, self.ages = n, a, ages
        self.past = [None] * n  # past[-k] is b_(-k)
        for i, age in enumerate(ages):
            self.past[n - age] = seed >> i & 1

    def offered(self, width, words):
        """Words from b_(-a) on, first bit lowest, without advancing."""
        bits = list(self.past)
        while len(bits) < self.n + width * words:
            bits.append(bits[-self.a] ^ bits[-self.n])
        bits = bits[self.n - self.a :]
        return [sum(bits[w * width + p] << p for p in range(width)) for w in range(words)]

    def advance(self, count):
        for _ in range(count):
            self.past.append(self.past[-self.a] ^ self.past[-self.n])
        self.past = self.past[-self.n :]

    def seed(self):
        return sum(self.past[self.n - age] << i for i, age in enumerate(self.ages))


FIFTEEN = [1] + [16 - i for i in range(1, 15)]
SEVEN = [1, 15, 8, 14, 7, 13, 6, 12, 5, 11, 4, 10, 3, 9, 2]


def signed(x, bits):
    x &= 2**bits - 1
    return x - 2**bits if x >> (bits - 1) else x


def clip(x, bits):
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, x))


class Core:
    """One core; `c` is the configuration as a dictionary."""

    def __init__(self, c, w_in, w_rec, w_out):
        self.c = c
        self.w_in, self.w_rec, self.w_out = ([[int(v) for v in row] for row in w] for w in (w_in, w_rec, w_out))
        low, high = lambda s: s & 0x7FFF, lambda s: s >> 15 & 0x7FFF
        both = lambda ages, s: [Bits(15, 1, ages, low(s)), Bits(15, 1, ages, high(s))]  # noqa: E731
        self.g_u, self.g_in = both(FIFTEEN, c["seed_neur"]), both(FIFTEEN, c["seed_tinp"])
        self.g_rec, self.g_out = both(FIFTEEN, c["seed_trec"]), both(SEVEN, c["seed_tout"])
        self.g_o = Bits(15, 1, SEVEN, c["seed_oneur"] & 0x7FFF)
        self.g_noise = Bits(17, 3, [3, 2, 1] + [20 - i for i in range(3, 17)], c["seed_noise"] & 0x1FFFF)
        ages = [3, 2, 1] + [28 - i for i in range(3, 25)]
        self.g_win, self.g_wrec = (Bits(25, 3, ages, c[s] & 0x1FFFFFF) for s in ("seed_inp", "seed_rec"))
        self.g_wout = Bits(22, 1, [1] + [23 - i for i in range(1, 22)], c["seed_out"] & 0x3FFFFF)
        self.rest()

    def rest(self):
        n, c = self.c["n_rec"], self.c
        self.u, self.trec, self.tout, self.z = [0] * n, [0] * n, [0] * n, [0] * n
        self.tin, self.o = [0] * c["n_in"], [0] * c["n_out"]

    def pair(self, name, p):
        return self.c[name] if isinstance(self.c[name], int) else self.c[name][p]

    def rounded(self, x, factor, fraction, cut, word):
        body = cut(x * factor >> fraction)
        if word is not None and (x * factor) % 2**fraction >= word and body != 0:
            body = cut(body + 1)
        return body

    def phase_s(self):
        c, on = self.c, self.c["stoch_round"]
        s16, u12, u10 = (lambda x: signed(x, 16)), (lambda x: x % 4096), (lambda x: x % 1024)
        for p in range(c["n_rec"] // 2):
            alpha, thr = self.pair("alpha", p), self.pair("thr", p)
            for m in range(2):
                j = 2 * p + m
                word = lambda g, width, m=m: g[m].offered(width, 1)[0] if on else None  # noqa: E731
                self.z[j] = int(self.u[j] >= thr)
                body = self.rounded(self.u[j], alpha, 15, s16, word(self.g_u, 15) if alpha != 0x8000 else None)
                self.u[j] = (0 if c["reset_zero"] else s16(body - thr)) if self.z[j] else body
                if j < c["n_in"]:
                    self.tin[j] = self.rounded(self.tin[j], alpha, 15, u12, word(self.g_in, 15))
                self.trec[j] = self.rounded(self.trec[j], alpha, 15, u12, word(self.g_rec, 15))
                kappa_word = word(self.g_out, 7) if c["kappa"] != 128 else None
                self.tout[j] = self.rounded(self.tout[j], c["kappa"], 7, u10, kappa_word)
                if on:
                    if alpha != 0x8000:
                        self.g_u[m].advance(15)
                    self.g_in[m].advance(15), self.g_rec[m].advance(15), self.g_out[m].advance(7)
        rounds = on and c["kappa"] != 128
        for k in range(16):
            if k < c["n_out"]:
                word = self.g_o.offered(7, 1)[0] if rounds else None
                self.o[k] = self.rounded(self.o[k], c["kappa"], 7, s16, word)
            if rounds:
                self.g_o.advance(7)

    def phase_e(self, target):
        c, n = self.c, self.c["n_rec"]
        y = [v if c["no_out_act"] else (0 if v < -2048 else 2048 if v > 2047 else v + 2048 >> 1) for v in self.o]
        err = [clip(t - v, 16) for t, v in zip(target, y, strict=True)]
        drive = [sum(e * w for e, w in zip(err, row, strict=True)) for row in self.w_out]
        L = [clip((d * 2 ** c["ls_scale"]) >> 12, 16) for d in drive]
        h = []
        for u in self.u:
            steps = [s for t, s in zip(c["thr_h"], c["h"], strict=False) if u < t]
            h.append(steps[0] if steps else c["h"][4])
        tr = [t >> c["fp_trec"] for t in self.trec]
        reg = [max(0, t - c["regul_f0"]) if c["regul_mode"] else 0 for t in tr]
        for block in range(0, n, 16):
            post = range(block, min(block + 16, n))
            if c["do_eprop"] & 4:
                self.learn_outputs(post, err)
            for i in range(n):
                if c["do_eprop"] & 1 and i < c["n_in"]:
                    f = self.tin[i] >> c["fp_tinp"]
                    self.learn(self.w_in[i], f, post, L, h, reg, self.g_win, "inp", 1, None)
                if c["do_eprop"] & 2:
                    self.learn(self.w_rec[i], tr[i], post, L, h, reg, self.g_wrec, "rec", 2, i)
        return err, L, h, reg

    def learn_outputs(self, post, err):
        c = self.c
        for j in post:
            to = self.tout[j] >> c["fp_tout"]
            if to:
                words = self.g_wout.offered(28, 16)
                for k, e in enumerate(err):
                    step = self.drawn(e * to, 28, c["lr_p_wout"], c["lr_r_wout"], words[k])
                    self.w_out[j][k] = clip(self.w_out[j][k] + step, 8)
                self.g_wout.advance(448)

    def learn(self, row, f, post, L, h, reg, generator, kind, bit, diagonal):
        c = self.c
        if f == 0 and not any(reg[j] for j in post):
            return
        words = generator.offered(32, 16)
        for j in post:
            E = signed(L[j] * f * h[j], 32)
            s = 16
            if c["regul_mode"] & 1 and c["regul_w"]:
                m = reg[j] >> c["k_mul"]
                s = 16 - m if m < 16 else 0
            K = E * (s if E >= 0 else 16)
            A = 0
            if c["regul_mode"] & 2 and c["regul_w"] & bit:
                A = ((reg[j] << c[f"k_{kind}_p"]) % 2**32) >> c[f"k_{kind}_r"]
            P = signed((K >> 4) - A, 32)
            if P >= 0 and K >> 31 & 1:
                P = -(2**31)
            step = self.drawn(P, 32, c[f"lr_p_w{kind}"], c[f"lr_r_w{kind}"], words[j % 16])
            if step:
                row[j] = 0 if j == diagonal else clip(row[j] + step, 8)
        generator.advance(512)

    def drawn(self, P, width, left, right, word):
        M = min(abs(P) << left, 2**width - 1) >> right
        if P == 0 or not (P == -(2 ** (width - 1)) or M >= word):
            return 0
        return 1 if P > 0 else -1

    def phase_p(self, x):
        c, n = self.c, self.c["n_rec"]
        on = lambda bit: c["force_traces"] or c["do_eprop"] >> bit & 1  # noqa: E731
        for i in range(n):
            spike_in, spike = (x[i] if i < c["n_in"] else 0), self.z[i]
            if not (spike_in or spike):
                continue
            for p in range(n // 2):
                noise = self.g_noise.offered(16, 2) if c["noise_en"] else [0, 0]
                for m in range(2):
                    j = 2 * p + m
                    v = (self.w_in[i][j] << c["fp_winp"] if spike_in else 0) + (
                        self.w_rec[i][j] << c["fp_wrec"] if spike else 0
                    )
                    total = signed(self.u[j] + v + (signed(noise[m], 16) >> c["noise_str"]), 16)
                    if self.u[j] >= 0 and v >= 0 and total < 0:
                        total = 32767
                    elif self.u[j] < 0 and v < 0 and total >= 0:
                        total = -32768
                    self.u[j] = total
                if c["noise_en"]:
                    self.g_noise.advance(32)
            if spike:
                self.o = [clip(o + (w << c["fp_wout"]), 16) for o, w in zip(self.o, self.w_out[i], strict=True)]
                if on(1):
                    self.trec[i] = min(4095, self.trec[i] + (8 << c["fp_trec"]))
                if on(2):
                    self.tout[i] = min(1023, self.tout[i] + (2 << c["fp_tout"]))
            if spike_in and on(0):
                self.tin[i] = min(4095, self.tin[i] + (8 << c["fp_tinp"]))

    def sample(self, inputs, target, valid):
        """A row of registers for each tick from 1 on, and the counts of winners."""
        self.rest()
        counts, rows, ticks = [0] * self.c["n_out"], [], len(inputs)
        self.phase_p(inputs[0])
        for t in range(1, ticks):
            row = {"u_P": list(self.u), "o_P": list(self.o)}
            self.phase_s()
            row.update({f"{n}_S": list(getattr(self, n)) for n in ("u", "tin", "trec", "tout", "o", "z")})
            if valid[t]:
                counts[self.o.index(max(self.o))] += 1
            row["signals"] = None
            if valid[t] and t < ticks - 1 and self.c["do_eprop"]:
                row["signals"] = self.phase_e(target[t])
            row["w"] = [list(v) for w in (self.w_in, self.w_rec, self.w_out) for v in w]
            if t < ticks - 1:
                self.phase_p(inputs[t])
            rows.append(row)
        return rows, counts

    def seeds(self):
        two = lambda g: g[0].seed() | g[1].seed() << 15  # noqa: E731
        return {
            "seed_neur": two(self.g_u), "seed_oneur": self.g_o.seed(), "seed_tinp": two(self.g_in),
            "seed_trec": two(self.g_rec), "seed_tout": two(self.g_out), "seed_noise": self.g_noise.seed(),
            "seed_inp": self.g_win.seed(), "seed_rec": self.g_wrec.seed(), "seed_out": self.g_wout.seed(),
        }  # fmt: skip
