// Nibbles times inputs in integers. A file that includes this has defined, in an unnamed namespace, TARGET, kLanes and
// the vector operations used below.
//
// Inputs become 24-bit integers, each block of 32 with a scale of its own: x = scale * f, |f| <= 127 * 2^16, so that the
// largest of a block keeps the precision it has in float. f is three signed bytes, f = 65536 a + 256 b + c, and codes
// are bytes, so the processor's byte dot products do the multiplying and no code is ever converted to float. A lane's
// sum of (code - zero) * f over 8 products is exact in 32 bits; only then does it become float and meet its scales. The
// error is that of float arithmetic or less, at a third of the instructions.

constexpr int kStep = 8 * kLanes;  // codes that a step reads: 8 to a lane, 4 lanes to a block of 32

struct Prepared {  // a step's inputs, in the order in which codes come out of their nibbles
    int8_t digits[3][2][4 * kLanes];
    int32_t sums[kLanes];      // of the 8 integers that a lane adds up
    float scales[kLanes];
    int32_t index[kLanes];     // the group of a lane, counted from the step's first
};

// One block of 32 inputs at `lane` .. `lane + 3`.
TARGET inline void prepare_block(const float* x, Prepared& step, int lane) {
    int32_t largest = 0, f[kBlock];
    for (int i = 0; i < kBlock; ++i) {
        union {
            float value;
            int32_t bits;
        } u;
        u.value = x[i];
        u.bits &= 0x7fffffff;
        largest = u.bits > largest ? u.bits : largest;  // positive floats are ordered as their bits are
    }
    union {
        int32_t bits;
        float value;
    } top;
    top.bits = largest;
    constexpr float kMost = 127 * 65536;
    // Infinite or no numbers poison the result through the scale; what is smaller than 1e-30 is nothing.
    const bool finite = largest < 0x7f800000, some = finite && top.value > 1e-30f;
    const float scale = finite ? (some ? top.value / kMost : 0.0f) : NAN, inverse = some ? kMost / top.value : 0.0f;
    for (int i = 0; i < kBlock; ++i) {
        const float value = some ? x[i] * inverse : 0.0f;
        f[i] = static_cast<int32_t>(value + (value < 0 ? -0.5f : 0.5f));
    }
    for (int half = 0; half < 2; ++half)
        for (int j = 0; j < kBlock / 2; ++j) {
            const int32_t value = f[half * kBlock / 2 + j];
            const int32_t low = static_cast<int8_t>(value), rest = (value - low) >> 8;
            const int32_t middle = static_cast<int8_t>(rest);
            step.digits[2][half][4 * lane + j] = static_cast<int8_t>(low);
            step.digits[1][half][4 * lane + j] = static_cast<int8_t>(middle);
            step.digits[0][half][4 * lane + j] = static_cast<int8_t>((rest - middle) >> 8);
        }
    for (int i = 0; i < 4; ++i) {
        int32_t sum = 0;
        for (int j = 4 * i; j < 4 * i + 4; ++j) sum += f[j] + f[kBlock / 2 + j];
        step.sums[lane + i] = sum;
        step.scales[lane + i] = scale;
    }
}

TARGET void prepare(const float* x, ptrdiff_t K, ptrdiff_t group, void* to) {
    static const float nothing[kBlock] = {};
    Prepared* step = static_cast<Prepared*>(to);
    for (ptrdiff_t k = 0; k < K; k += kStep, ++step)
        for (int lane = 0; lane < kLanes; lane += 4) {
            const ptrdiff_t at = k + 8 * lane;
            prepare_block(at < K ? x + at : nothing, *step, lane);
            for (int i = 0; i < 4; ++i) step->index[lane + i] = static_cast<int32_t>(at / group - k / group);
        }
}

template <int R, int M>
TARGET inline void integer_tile(const Weights& w, ptrdiff_t row, const Prepared* input, ptrdiff_t stride, float* out,
                                ptrdiff_t ldo) {
    const ptrdiff_t K = w.K, groups = K / w.group, bytes = K / 2;
    const uint8_t* codes = w.codes + row * bytes;
    const uint8_t* ahead = codes + kAhead * bytes;
    F total[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) total[r][m] = zero();
    ptrdiff_t first = 0, next = w.group;  // the group that a step begins in, and where the group ends
    for (ptrdiff_t k = 0; k < K; k += kStep, codes += kStep / 2, ++input) {
        while (next <= k) ++first, next += w.group;
        const I index = load_int(input->index);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            __builtin_prefetch(ahead);  // see kAhead
            ahead += kStep / 2;
            const ptrdiff_t at = (row + r) * groups + first;
            const F scale = pick(halves(w.scales + at, groups - first), index);
            const I offset = pick(bytes_wide(w.zeros + at, groups - first), index);
            const I both = load_codes(codes + r * bytes, K - k), low = low_nibbles(both), high = high_nibbles(both);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) {
                const Prepared& x = input[m * stride];
                const I sum = dot_digits(low, high, x.digits);
                const F exact = to_float(subtract(sum, multiply_int(offset, load_int(x.sums))));
                total[r][m] = multiply_add(exact, multiply(scale, load(x.scales)), total[r][m]);
            }
        }
    }
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) out[m * ldo + r] = sum(total[r][m]);
}

TARGET void integer_rows(const Weights& w, ptrdiff_t row, const void* prepared, ptrdiff_t M, float* out, ptrdiff_t ldo) {
    const Prepared* input = static_cast<const Prepared*>(prepared);
    const ptrdiff_t stride = (w.K + kStep - 1) / kStep;
    for (; M >= 2; M -= 2, input += 2 * stride, out += 2 * ldo)
        for (int r = 0; r < kRows; r += 4) integer_tile<4, 2>(w, row + r, input, stride, out + r, ldo);
    if (M == 1) integer_tile<kRows, 1>(w, row, input, stride, out, ldo);
}
