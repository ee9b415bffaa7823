// The parts of a decoding step other than packed linears, written once. A file that includes this has defined, in an
// unnamed namespace, TARGET, kLanes, kTall (weight rows of a tile with one input; with more it has half or a quarter)
// and the vector operations F, zero, splat, load, store, multiply_add, half, brain and sum.

template <int64_t Kind>
TARGET inline F lanes(const void* weight, ptrdiff_t at) {
    if (Kind == kHalf) return half(static_cast<const uint16_t*>(weight) + at);
    if (Kind == kBrain) return brain(static_cast<const uint16_t*>(weight) + at);
    return load(static_cast<const float*>(weight) + at);
}

template <int64_t Kind>
TARGET inline float one(const void* weight, ptrdiff_t at) {
    if (Kind == kHalf) return half_to_float(static_cast<const uint16_t*>(weight)[at]);
    if (Kind == kFloat) return static_cast<const float*>(weight)[at];
    union {
        uint32_t bits;
        float value;
    } u;
    u.bits = static_cast<uint32_t>(static_cast<const uint16_t*>(weight)[at]) << 16;
    return u.value;
}

template <int64_t Kind, int R, int M>
TARGET inline void dense_tile(const Linear& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo) {
    const ptrdiff_t K = w.K, whole = K / kLanes * kLanes;
    F total[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) total[r][m] = zero();
    constexpr int kSize = Kind == kFloat ? 4 : 2, kRead = R * kLanes * kSize;
    const char* ahead = static_cast<const char*>(w.weight) + (row + kAhead) * K * kSize;
    for (ptrdiff_t k = 0; k < whole; k += kLanes, ahead += kRead) {
        for (int at = 0; at < kRead; at += 64) __builtin_prefetch(ahead + at);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const F value = lanes<Kind>(w.weight, (row + r) * K + k);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) total[r][m] = multiply_add(value, load(x + m * K + k), total[r][m]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) {
            float result = sum(total[r][m]);
            for (ptrdiff_t k = whole; k < K; ++k) result += one<Kind>(w.weight, (row + r) * K + k) * x[m * K + k];
            out[m * ldo + r] = result;
        }
}

// All inputs of R rows, four at a time.
template <int64_t Kind, int R>
TARGET inline void dense_inputs(const Linear& w, ptrdiff_t row, const float* x, ptrdiff_t M, float* out, ptrdiff_t ldo) {
    for (; M >= 4; M -= 4, x += 4 * w.K, out += 4 * ldo) dense_tile<Kind, R, 4>(w, row, x, out, ldo);
    if (M == 3) dense_tile<Kind, R, 3>(w, row, x, out, ldo);
    if (M == 2) dense_tile<Kind, R, 2>(w, row, x, out, ldo);
    if (M == 1) dense_tile<Kind, R, 1>(w, row, x, out, ldo);
}

template <int64_t Kind>
TARGET void dense_rows(const Linear& w, ptrdiff_t row, ptrdiff_t count, const float* x, ptrdiff_t M, float* out,
                       ptrdiff_t ldo) {
    constexpr int kShort = kTall / (kTall >= 8 ? 2 : 4) > 0 ? kTall / (kTall >= 8 ? 2 : 4) : 1;
    ptrdiff_t r = 0;
    if (M == 1)
        for (; r + kTall <= count; r += kTall) dense_tile<Kind, kTall, 1>(w, row + r, x, out + r, ldo);
    else
        for (; r + kShort <= count; r += kShort) dense_inputs<Kind, kShort>(w, row + r, x, M, out + r, ldo);
    for (; r < count; ++r) dense_inputs<Kind, 1>(w, row + r, x, M, out + r, ldo);
}

TARGET void dense(const Linear& w, ptrdiff_t row, ptrdiff_t count, const float* x, ptrdiff_t M, float* out,
                  ptrdiff_t ldo) {
    if (w.kind == kHalf) dense_rows<kHalf>(w, row, count, x, M, out, ldo);
    else if (w.kind == kBrain) dense_rows<kBrain>(w, row, count, x, M, out, ldo);
    else dense_rows<kFloat>(w, row, count, x, M, out, ldo);
}

TARGET void widen(const Linear& w, ptrdiff_t row, float scale, float* out) {
    const ptrdiff_t begin = row * w.K;
    for (ptrdiff_t k = 0; k < w.K; ++k)
        out[k] = scale * (w.kind == kHalf    ? one<kHalf>(w.weight, begin + k)
                          : w.kind == kBrain ? one<kBrain>(w.weight, begin + k)
                                             : one<kFloat>(w.weight, begin + k));
}

TARGET inline float dot(const float* a, const float* b, ptrdiff_t n) {
    F total = zero();
    ptrdiff_t i = 0;
    for (; i + kLanes <= n; i += kLanes) total = multiply_add(load(a + i), load(b + i), total);
    float result = sum(total);
    for (; i < n; ++i) result += a[i] * b[i];
    return result;
}

TARGET float inverse_rms(const float* x, ptrdiff_t n, double eps) {
    return 1.0f / std::sqrt(dot(x, x, n) / static_cast<float>(n) + static_cast<float>(eps));
}

TARGET void norm(const Norm& norm, const float* x, ptrdiff_t n, float* out) {
    const float scale = inverse_rms(x, n, norm.eps);
    for (ptrdiff_t i = 0; i < n; ++i) out[i] = x[i] * scale * norm.weight[i];
}

TARGET void add(float* x, const float* y, ptrdiff_t n, float scale) {
    for (ptrdiff_t i = 0; i < n; ++i) x[i] += scale * y[i];
}

// e^x to about one unit in the last place, without a branch, so that compilers vectorise the loops around it: 2^n by
// the exponent's bits, the rest by a polynomial on [-ln 2 / 2, ln 2 / 2]. Underflows to the smallest normal number.
TARGET inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float rounded = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer stands in the low bits
    const float n = rounded - 12582912.0f;
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    union {
        float value;
        uint32_t bits;
    } power;
    power.value = rounded;
    power.bits = (power.bits + 127u) << 23;
    return (p * r * r + r + 1.0f) * power.value;
}

TARGET inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

TARGET void gate(float* gate, const float* up, ptrdiff_t n, int64_t activation) {
    if (activation == kSilu)
        for (ptrdiff_t i = 0; i < n; ++i) gate[i] = gate[i] * sigmoid(gate[i]) * up[i];
    else if (activation == kGeluTanh)  // 0.5 x (1 + tanh u) = x sigmoid(2 u)
        for (ptrdiff_t i = 0; i < n; ++i) {
            const float x = gate[i];
            gate[i] = x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)) * up[i];
        }
    else if (activation == kGelu)
        for (ptrdiff_t i = 0; i < n; ++i) gate[i] = 0.5f * gate[i] * (1.0f + std::erf(gate[i] * 0.70710678f)) * up[i];
    else
        for (ptrdiff_t i = 0; i < n; ++i) gate[i] = (gate[i] > 0 ? gate[i] : 0) * up[i];
}

TARGET void attend(const float* query, const float* keys, const float* values, ptrdiff_t n, ptrdiff_t size, float scale,
                   float cap, float* scores, float* out) {
    float largest = -INFINITY;
    for (ptrdiff_t t = 0; t < n; ++t) scores[t] = dot(query, keys + t * size, size) * scale;
    if (cap > 0)
        for (ptrdiff_t t = 0; t < n; ++t) scores[t] = cap * std::tanh(scores[t] / cap);
    for (ptrdiff_t t = 0; t < n; ++t) largest = scores[t] > largest ? scores[t] : largest;
    for (ptrdiff_t t = 0; t < n; ++t) scores[t] = exponential(scores[t] - largest);
    float total = 0;
    for (ptrdiff_t t = 0; t < n; ++t) total += scores[t];
    const float share = 1.0f / total;
    ptrdiff_t i = 0;
    constexpr int kWide = 4;  // vectors of the output that stay in registers while t runs
    for (; i + kWide * kLanes <= size; i += kWide * kLanes) {
        F mixed[kWide] = {zero(), zero(), zero(), zero()};
        for (ptrdiff_t t = 0; t < n; ++t)
            for (int j = 0; j < kWide; ++j)
                mixed[j] = multiply_add(splat(scores[t]), load(values + t * size + i + j * kLanes), mixed[j]);
        for (int j = 0; j < kWide; ++j) store(out + i + j * kLanes, mixed[j]);
    }
    for (ptrdiff_t left = i; left < size; ++left) {
        float mixed = 0;
        for (ptrdiff_t t = 0; t < n; ++t) mixed += scores[t] * values[t * size + left];
        out[left] = mixed;
    }
    for (ptrdiff_t j = 0; j < size; ++j) out[j] *= share;
}
