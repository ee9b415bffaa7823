// Shared by the tiles of every instruction set: the weight layout and the meaning of one tile.
//
// A weight row of K four-bit codes takes K / 2 bytes. Every 32 codes lie in 16 bytes: byte j holds code j in its low
// and code 16 + j in its high nibble, so that 8 or 16 widened bytes give consecutive codes without a shuffle. Wider
// codes take a byte each, in order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "narrow.h"

namespace awqbench {

constexpr int kBlock = 32;       // codes that a tile decodes at a time
template <int Bits>              // 4 or 8: what a code takes
constexpr int kBlockBytes = kBlock * Bits / 8;

struct Weights {
    const uint8_t* codes;        // [N, K / 2] or [N, K]
    const uint16_t* scales;      // [N, K / group], IEEE half
    const uint8_t* zeros;        // [N, K / group]
    ptrdiff_t K;                 // a multiple of kBlock
    ptrdiff_t group;             // divides K; a multiple of kBlock, or half of it: two groups to a block
};

// out[m * ldo + r] = sum over k of x[m * K + k] * weight[row + r][k] for `rows` weight rows and `m` input rows.
// Every sum runs over k in the same order whatever the tile's size, so results do not depend on how work is split.
template <class X>
using TileOf = void (*)(const Weights&, ptrdiff_t row, const X* x, float* out, ptrdiff_t ldo);
using Tile = TileOf<float>;

// (code - zero) * scale needs at most 9 + 11 bits, so the dequantized weight is exact in float whichever way it's
// computed.
using DequantizeRow = void (*)(const Weights&, ptrdiff_t row, float* out);

constexpr int kRows = 8;         // weight rows per unit of work; every tile width divides it
constexpr int kMaxInputs = 6;    // input rows per tile

template <class X>
struct KernelOf {                      // for codes of one width and inputs of one type
    int width[kMaxInputs + 1];         // weight rows per tile when a tile takes m input rows
    TileOf<X> tile[kMaxInputs + 1];    // tile[m], m = 1 .. inputs
    int inputs;                        // largest m
    DequantizeRow dequantize;
};
using Kernel = KernelOf<float>;

struct Isa {
    const char* name;
    Kernel nibbles, bytes;
    Convert bfloat, half;              // what inputs and outputs of 16 bits go through
};

extern const Isa kScalar;
#if defined(__x86_64__)
extern const Isa kAvx2;
extern const Isa kAvx512;
#elif defined(__aarch64__)
extern const Isa kNeon;
#endif

// Tiles that multiply nibbles by bfloat16 inputs as they are, in groups of a multiple of kProductsGroup. Of every 64
// inputs, those of low nibbles come first: 0 .. 15, 32 .. 47, 16 .. 31, 48 .. 63.
constexpr ptrdiff_t kProductsGroup = 2 * kBlock;
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 10)
#define AWQBENCH_AVX512_BF16 1
extern const KernelOf<Bfloat> kAvx512Products;
#endif

}  // namespace awqbench
