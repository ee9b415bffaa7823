// Shared by the tiles of every instruction set: the weight layout and the meaning of one tile.
//
// A weight row of K four-bit codes takes K / 2 bytes. Every 32 codes lie in 16 bytes: byte j holds code j in its low
// and code 16 + j in its high nibble, so that 8 or 16 widened bytes give consecutive codes without a shuffle. Wider
// codes take a byte each, in order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace awqbench {

constexpr int kBlock = 32;       // codes that a tile decodes at a time
template <int Bits>              // 4 or 8: what a code takes
constexpr int kBlockBytes = kBlock * Bits / 8;

struct Weights {
    const uint8_t* codes;        // [N, K / 2] or [N, K]
    const uint16_t* scales;      // [N, K / group], IEEE half
    const uint8_t* zeros;        // [N, K / group]
    ptrdiff_t K;
    ptrdiff_t group;             // a multiple of kBlock that divides K
};

// out[m * ldo + r] = sum over k of x[m * K + k] * weight[row + r][k] for `rows` weight rows and `m` input rows.
// Every sum runs over k in the same order whatever the tile's size, so results do not depend on how work is split.
using Tile = void (*)(const Weights&, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo);

// (code - zero) * scale needs at most 9 + 11 bits, so the dequantized weight is exact in float whichever way it's computed.
using DequantizeRow = void (*)(const Weights&, ptrdiff_t row, float* out);

constexpr int kRows = 8;         // weight rows per unit of work: the AutoAWQ format's output size is a multiple of 8
constexpr int kMaxInputs = 6;    // input rows per tile

struct Kernel {                        // for codes of one width
    int width[kMaxInputs + 1];         // weight rows per tile when a tile takes m input rows
    Tile tile[kMaxInputs + 1];         // tile[m], m = 1 .. inputs
    int inputs;                        // largest m
    DequantizeRow dequantize;
};

struct Isa {
    const char* name;
    Kernel nibbles, bytes;
};

extern const Isa kScalar;
#if defined(__x86_64__)
extern const Isa kAvx2;
extern const Isa kAvx512;
#endif

inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fu;
    const uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0) {
        const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24: subnormal or zero
        return sign ? -value : value;
    }
    union {
        uint32_t bits;
        float value;
    } u;
    u.bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13);
    return u.value;
}

}  // namespace awqbench
