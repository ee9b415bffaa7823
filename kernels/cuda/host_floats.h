// Half and bfloat16 on the host, as bit patterns, without CUDA's headers: what dequant.h computes with outside a GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace awqbench::host {

// dtype 0: half (5 exponent bits, 10 of mantissa); 1: bfloat16 (8 and 7).
inline float to_float(int dtype, uint16_t bits) {
    if (dtype == 0 && (bits & 0x7c00u) == 0)  // zero or subnormal: counts of 2^-24
        return std::copysign(static_cast<float>(bits & 0x3ffu) * 5.9604644775390625e-8f, bits & 0x8000u ? -1.f : 1.f);
    uint32_t word = static_cast<uint32_t>(bits) << 16;
    if (dtype == 0) {
        const uint32_t magnitude = bits & 0x7fffu;
        word = (word & 0x80000000u) | (magnitude >= 0x7c00u ? 0x7f800000u | (magnitude & 0x3ffu) << 13
                                                            : (magnitude << 13) + (112u << 23));
    }
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}

// Rounded once from double to nearest even; NaN stays NaN, what is too large becomes infinite.
inline uint16_t to_bits(int dtype, double value) {
    const int mantissa = dtype == 0 ? 10 : 7, bias = dtype == 0 ? 15 : 127, top = 2 * bias;
    const uint16_t sign = std::signbit(value) ? 0x8000u : 0u, infinite = static_cast<uint16_t>((top + 1) << mantissa);
    if (std::isnan(value)) return static_cast<uint16_t>(infinite | 1u << (mantissa - 1));
    if (std::isinf(value)) return sign | infinite;
    if (value == 0) return sign;
    int exponent = std::ilogb(value) + bias;
    if (exponent < 1) exponent = 1;  // subnormal: the unit of the smallest normal numbers
    // nearbyint rounds to even in the default mode. A carry out of the mantissa lands in the exponent, as it should.
    const double units = std::nearbyint(std::ldexp(std::fabs(value), mantissa + bias - exponent));
    const int64_t bits = (static_cast<int64_t>(exponent - 1) << mantissa) + static_cast<int64_t>(units);
    return bits >= infinite ? sign | infinite : static_cast<uint16_t>(sign | bits);
}

// a * b + c in both halves. The product is exact in double; so is the sum of numbers within 2^30 of each other.
inline uint32_t fma_pair(int dtype, uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result = 0;
    for (int shift = 0; shift <= 16; shift += 16) {
        const auto at = [&](uint32_t pair) { return static_cast<double>(to_float(dtype, static_cast<uint16_t>(pair >> shift))); };
        result |= static_cast<uint32_t>(to_bits(dtype, at(a) * at(b) + at(c))) << shift;
    }
    return result;
}

}  // namespace awqbench::host
