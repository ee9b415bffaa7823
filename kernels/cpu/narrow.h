// Numbers of 16 bits: to float, and back by rounding to the nearest, ties to even.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace awqbench {

enum class Type { kFloat = 0, kBfloat = 1, kHalf = 2 };  // as the C interface numbers them

using Half = uint16_t;      // IEEE binary16
struct Bfloat {
    uint16_t bits;          // the upper half of a float
};

// One 16-bit type: arrays of n numbers, either way.
struct Convert {
    void (*widen)(const uint16_t* from, float* to, ptrdiff_t n);
    void (*narrow)(const float* from, uint16_t* to, ptrdiff_t n);
};

inline float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float bfloat_to_float(uint16_t bits) { return as_float(static_cast<uint32_t>(bits) << 16); }

// The carry of the rounding may run into the exponent: the next power of two, or infinity. It may not run through a
// NaN, which keeps its upper bits and is made quiet.
inline uint16_t float_to_bfloat(float value) {
    const uint32_t bits = as_bits(value), rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return static_cast<uint16_t>((nan ? bits | 0x400000u : rounded) >> 16);
}

inline float half_to_float(Half half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fu, mantissa = half & 0x3ffu;
    if (exponent == 0) {
        const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24: subnormal or zero
        return sign ? -value : value;
    }
    return as_float(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13));
}

inline Half float_to_half(float value) {
    const uint32_t bits = as_bits(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {   // below 2^-14: adding 0.5 leaves units of 2^-24, rounded by the adder
        half = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    return static_cast<Half>(sign | half);
}

}  // namespace awqbench
