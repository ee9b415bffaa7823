// Portable parts of a decoding step; loops of eight that compilers vectorise.
#include <cmath>

#include "decode.h"

#define TARGET

namespace awqbench {
namespace {

constexpr int kLanes = 8, kTall = 4;
struct F {
    float at[kLanes];
};
inline F zero() { return {}; }
inline F splat(float value) {
    F made;
    for (float& lane : made.at) lane = value;
    return made;
}
inline F load(const float* from) {
    F made;
    for (int i = 0; i < kLanes; ++i) made.at[i] = from[i];
    return made;
}
inline void store(float* to, const F& value) {
    for (int i = 0; i < kLanes; ++i) to[i] = value.at[i];
}
inline F multiply_add(const F& a, const F& b, F c) {
    for (int i = 0; i < kLanes; ++i) c.at[i] += a.at[i] * b.at[i];
    return c;
}
inline F half(const uint16_t* from) {
    F made;
    for (int i = 0; i < kLanes; ++i) made.at[i] = half_to_float(from[i]);
    return made;
}
inline F brain(const uint16_t* from) {
    union {
        uint32_t bits[kLanes];
        F made;
    } u;
    for (int i = 0; i < kLanes; ++i) u.bits[i] = static_cast<uint32_t>(from[i]) << 16;
    return u.made;
}
inline float sum(const F& value) {
    float total = 0;
    for (float lane : value.at) total += lane;
    return total;
}

#include "decode_parts.h"

}  // namespace

const Parts kScalarParts = {dense, widen, norm, inverse_rms, gate, add, attend};

}  // namespace awqbench
