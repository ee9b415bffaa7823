// NEON (64-bit ARM): a code less its zero point is an integer of few bits, so the upper two bytes of its float are all
// of it. Two 16-byte tables hold them, looked up by code; a group's sum is multiplied by its scale.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "w4a16.h"

namespace awqbench {
namespace {

// The upper bytes of the floats -255 .. 255: the 16 from 255 - z on are what the codes stand for at the zero point z.
struct Integers {
    uint8_t high[512], low[512];
    constexpr Integers() : high(), low() {
        for (int i = 0; i < 511; ++i) {
            const int value = i - 255, size = value < 0 ? -value : value;
            int exponent = 0;
            while (size >> (exponent + 1)) ++exponent;
            const int magnitude = size ? (127 + exponent) << 7 | ((size << (7 - exponent)) & 0x7f) : 0;
            high[i] = static_cast<uint8_t>((value < 0 ? 0x80 : 0) | magnitude >> 8);
            low[i] = static_cast<uint8_t>(magnitude);
        }
    }
};
constexpr Integers kIntegers;

// What decodes a group's codes: its two tables (4 bits), or its zero point (8 bits).
struct Group {
    uint8x16_t high, low;
};

template <int Bits>
inline Group make_group(uint8_t zero) {
    if (Bits == 8) return {vdupq_n_u8(zero), vdupq_n_u8(zero)};
    return {vld1q_u8(kIntegers.high + 255 - zero), vld1q_u8(kIntegers.low + 255 - zero)};
}

inline void widen_pairs(uint16x8_t upper, float32x4_t* value) {
    value[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(upper), 16));
    value[1] = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(upper), 16));
}

// Sixteen codes, one to a byte, less the zero point.
template <int Bits>
inline void decode(uint8x16_t codes, const Group& group, float32x4_t* value) {
    if (Bits == 4) {
        const uint8x16_t high = vqtbl1q_u8(group.high, codes), low = vqtbl1q_u8(group.low, codes);
        widen_pairs(vreinterpretq_u16_u8(vzip1q_u8(low, high)), value);
        widen_pairs(vreinterpretq_u16_u8(vzip2q_u8(low, high)), value + 2);
    } else {
        const int16x8_t first = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(codes), vget_low_u8(group.low)));
        const int16x8_t second = vreinterpretq_s16_u16(vsubl_u8(vget_high_u8(codes), vget_high_u8(group.low)));
        value[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(first)));
        value[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(first)));
        value[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(second)));
        value[3] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(second)));
    }
}

// Half number `half` of a block: its sixteen codes, one to a byte.
template <int Bits>
inline uint8x16_t load_codes(const uint8_t* block, int half) {
    if (Bits == 8) return vld1q_u8(block + 16 * half);
    return half ? vshrq_n_u8(vld1q_u8(block), 4) : vandq_u8(vld1q_u8(block), vdupq_n_u8(0xF));
}

inline float scale_of(Half half) {
    float16_t value;
    std::memcpy(&value, &half, sizeof value);
    return static_cast<float>(value);
}

template <int Bits, int R, int M>
void tile(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo) {
    const ptrdiff_t K = w.K, groups = K / w.group, halves = w.group / (kBlock / 2), bytes = K * Bits / 8;
    const uint8_t* codes = w.codes + row * bytes;
    float32x4_t total[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) total[r][m] = vdupq_n_f32(0);
    ptrdiff_t half = 0;  // the half blocks done: a group of 16 is one, the others begin and end with a block
    for (ptrdiff_t g = 0; g < groups; ++g) {
        Group group[R];
        float32x4_t sum[R][M];
        for (int r = 0; r < R; ++r) {
            group[r] = make_group<Bits>(w.zeros[(row + r) * groups + g]);
            for (int m = 0; m < M; ++m) sum[r][m] = vdupq_n_f32(0);
        }
        for (const ptrdiff_t end = half + halves; half < end; ++half, x += kBlock / 2) {
            const uint8_t* block = codes + half / 2 * kBlockBytes<Bits>;
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                float32x4_t value[4];
                decode<Bits>(load_codes<Bits>(block + r * bytes, half % 2), group[r], value);
#pragma GCC unroll 4
                for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
                    for (int i = 0; i < 4; ++i)
                        sum[r][m] = vfmaq_f32(sum[r][m], value[i], vld1q_f32(x + m * K + 4 * i));
            }
        }
        for (int r = 0; r < R; ++r) {
            const float scale = scale_of(w.scales[(row + r) * groups + g]);
            for (int m = 0; m < M; ++m) total[r][m] = vfmaq_n_f32(total[r][m], sum[r][m], scale);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) out[m * ldo + r] = vaddvq_f32(total[r][m]);
}

template <int Bits>
void dequantize(const Weights& w, ptrdiff_t row, float* out) {
    const ptrdiff_t groups = w.K / w.group, halves = w.group / (kBlock / 2);
    const uint8_t* codes = w.codes + row * (w.K * Bits / 8);
    ptrdiff_t half = 0;
    for (ptrdiff_t g = 0; g < groups; ++g) {
        const Group group = make_group<Bits>(w.zeros[row * groups + g]);
        const float scale = scale_of(w.scales[row * groups + g]);
        for (const ptrdiff_t end = half + halves; half < end; ++half, out += kBlock / 2) {
            float32x4_t value[4];
            decode<Bits>(load_codes<Bits>(codes + half / 2 * kBlockBytes<Bits>, half % 2), group, value);
            for (int i = 0; i < 4; ++i) vst1q_f32(out + 4 * i, vmulq_n_f32(value[i], scale));
        }
    }
}

void widen_bfloat(const uint16_t* from, float* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) to[i] = bfloat_to_float(from[i]);
}

void narrow_bfloat(const float* from, uint16_t* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) to[i] = float_to_bfloat(from[i]);
}

void widen_half(const uint16_t* from, float* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) to[i] = scale_of(from[i]);
}

void narrow_half(const float* from, uint16_t* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) {
        const float16_t half = static_cast<float16_t>(from[i]);
        std::memcpy(to + i, &half, sizeof half);
    }
}

template <int Bits>
constexpr Kernel kKernel = {
    {0, 4, 4, 2, 2},
    {nullptr, tile<Bits, 4, 1>, tile<Bits, 4, 2>, tile<Bits, 2, 3>, tile<Bits, 2, 4>},
    4,
    dequantize<Bits>,
};

}  // namespace

const Isa kNeon = {
    "neon", kKernel<4>, kKernel<8>, {widen_bfloat, narrow_bfloat}, {widen_half, narrow_half},
};

}  // namespace awqbench
#endif
