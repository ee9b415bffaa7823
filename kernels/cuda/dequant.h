// From 4-bit codes to pairs of half or bfloat16: (q - z), exact in both types, without a conversion instruction.
//
// A code OR-ed into the mantissa of a power of two is that power plus the code: half 0x6400 | q = 1024 + q, and with
// the code in the next nibble 1024 + 16 q; bfloat16 0x4300 | q = 128 + q, whose 7 mantissa bits want the code in the
// lowest nibble. One add, or one fused multiply-add by 1/16, takes off the power and the zero point. Scales are not
// applied by decode(): GEMM kernels apply them to the float32 sum of a group.
//
// A pair is a register of two 16-bit floats, the first in the low half. On the host the same functions are plain C++.
#pragma once

#include <cstdint>

#include "layout.h"

#if !defined(__CUDA_ARCH__)
#include "host_floats.h"
#endif

namespace awqbench {

enum Dtype : int { kHalf = 0, kBfloat16 = 1 };

using Pair = uint32_t;

AWQBENCH_HD constexpr Pair twice(uint32_t bits) { return bits * 0x00010001u; }

// The low, or the high, half of a word in both halves.
AWQBENCH_HD Pair low_twice(uint32_t word) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(word, 0, 0x1010);
#else
    return twice(word & 0xffffu);
#endif
}
AWQBENCH_HD Pair high_twice(uint32_t word) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(word, 0, 0x3232);
#else
    return twice(word >> 16);
#endif
}

// (word & mask) | exponent, one lop3.
AWQBENCH_HD Pair insert_bits(uint32_t word, uint32_t mask, uint32_t exponent) {
#if defined(__CUDA_ARCH__)
    Pair result;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(word), "r"(mask), "r"(exponent));
    return result;
#else
    return (word & mask) | exponent;
#endif
}

AWQBENCH_HD Pair add_half2(Pair a, Pair b) {
#if defined(__CUDA_ARCH__)
    Pair result;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
    return result;
#else
    return host::fma_pair(kHalf, a, twice(0x3c00u), b);
#endif
}

template <int D>
AWQBENCH_HD Pair fma_pair(Pair a, Pair b, Pair c) {
#if defined(__CUDA_ARCH__)
    Pair result;
    if constexpr (D == kHalf)
        asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    else
        asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
#else
    return host::fma_pair(D, a, b, c);
#endif
}

AWQBENCH_HD float half_to_float(uint16_t bits) {
#if defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    return host::to_float(kHalf, bits);
#endif
}

template <int D>
AWQBENCH_HD float low_float(Pair pair) {
    if constexpr (D == kHalf) return half_to_float(static_cast<uint16_t>(pair));
#if defined(__CUDA_ARCH__)
    return __uint_as_float(pair << 16);
#else
    return host::to_float(kBfloat16, static_cast<uint16_t>(pair));
#endif
}

template <int D>
AWQBENCH_HD float high_float(Pair pair) {
    if constexpr (D == kHalf) return half_to_float(static_cast<uint16_t>(pair >> 16));
#if defined(__CUDA_ARCH__)
    return __uint_as_float(pair & 0xffff0000u);
#else
    return host::to_float(kBfloat16, static_cast<uint16_t>(pair >> 16));
#endif
}

// Two floats, each rounded to nearest even.
template <int D>
AWQBENCH_HD Pair pair_of(float low, float high) {
#if defined(__CUDA_ARCH__)
    Pair result;
    if constexpr (D == kHalf)
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    else
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
#else
    return host::to_bits(D, low) | static_cast<Pair>(host::to_bits(D, high)) << 16;
#endif
}

// What takes off the power and the zero point: for row g (pairs 0 and 2) and for row g+8 (pairs 1 and 3).
struct Offsets {
    Pair low, high;
};

// From a step's zero byte: row g in the low, row g+8 in the high nibble.
template <int D>
AWQBENCH_HD Offsets offsets(uint32_t zero_byte) {
    // half: -(1024 + z), and -(64 + z) whose mantissa counts sixteenths, so that the high nibble is in place already.
    if constexpr (D == kHalf) return {twice(0xe400u | (zero_byte & 0x0fu)), twice(0xd400u | (zero_byte & 0xf0u))};
    return {twice(0xc300u | (zero_byte & 0x0fu)), twice(0xc300u | (zero_byte >> 4 & 0x0fu))};  // -(128 + z)
}

// The four A registers of a lane: q - z of the pairs 0 to 3 of a word.
template <int D>
AWQBENCH_HD void decode(uint32_t word, Offsets zero, Pair (&out)[4]) {
    if constexpr (D == kHalf) {
        const Pair sixteenth = twice(0x2c00u), power = twice(0x6400u);
        const uint32_t upper = word >> 8;
        out[0] = add_half2(insert_bits(word, 0x000f000fu, power), zero.low);
        out[1] = fma_pair<D>(insert_bits(word, 0x00f000f0u, power), sixteenth, zero.high);
        out[2] = add_half2(insert_bits(upper, 0x000f000fu, power), zero.low);
        out[3] = fma_pair<D>(insert_bits(upper, 0x00f000f0u, power), sixteenth, zero.high);
    } else {
        const Pair one = twice(0x3f80u), power = twice(0x4300u);
        out[0] = fma_pair<D>(insert_bits(word, 0x000f000fu, power), one, zero.low);
        out[1] = fma_pair<D>(insert_bits(word >> 4, 0x000f000fu, power), one, zero.high);
        out[2] = fma_pair<D>(insert_bits(word >> 8, 0x000f000fu, power), one, zero.low);
        out[3] = fma_pair<D>(insert_bits(word >> 12, 0x000f000fu, power), one, zero.high);
    }
}

// A scale as scaled() wants it. bfloat16 holds 8 of its 11 significant bits, so there are two: scale = high + low.
template <int D>
struct Factor {
    Pair high, low;
};

// From a half scale that stands in both halves.
template <int D>
AWQBENCH_HD Factor<D> factor(Pair scale) {
    if constexpr (D == kHalf) return {scale, 0};
    const float whole = half_to_float(static_cast<uint16_t>(scale));
    const Pair high = pair_of<D>(whole, whole);
    const float rest = whole - low_float<D>(high);
    return {high, pair_of<D>(rest, rest)};
}

// The weights of a pair of differences: (q - z) * scale, rounded once. In bfloat16 (q - z) * low has at most 4 + 3
// significant bits, so it is exact, and the second rounding is the only one.
template <int D>
AWQBENCH_HD Pair scaled(Pair differences, Factor<D> by) {
    const Pair nothing = twice(0x8000u);  // + -0 keeps the sign of 0
    if constexpr (D == kHalf) return fma_pair<D>(differences, by.high, nothing);
    return fma_pair<D>(differences, by.high, fma_pair<D>(differences, by.low, nothing));
}

}  // namespace awqbench
