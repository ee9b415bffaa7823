// One head of the new token: RMS norm and rotary in float32, rounded to 16 bits once, to shared memory.
#pragma once

#include "arch.h"
#include "attend_split.h"

namespace awqbench {

AWQBENCH_DEVICE float sum_of_warp(float value) {  // the same bits in all lanes: each adds the same pairs
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2)
        value += arch::float_of(arch::shuffle(arch::bits_of(value), arch::thread() % kLanes ^ step));
    return value;
}

template <int D>
AWQBENCH_DEVICE float load_number(const uint16_t* from) {
    return low_float<D>(arch::load_float16(from));
}

// All lanes of a warp. `head`: its numbers in qkv; `norm` null for none; `to`: a row of shared memory, whose padding gets
// zeros; `cache`: where the head is stored too, or null. PARTS * 32 numbers at the most.
template <int D, int PARTS>
AWQBENCH_DEVICE void prepare_head(const Attend& p, const uint16_t* head, const float* norm, int position, arch::Shared to,
                                  uint16_t* cache) {
    const int lane = arch::thread() % kLanes, half = p.rotary / 2;
    const float *const cosines = p.cosines + static_cast<int64_t>(position) * p.rotary,
                *const sines = p.sines + static_cast<int64_t>(position) * p.rotary;
    // Everything sets out before anything is used. Number i turns with i + half, or i - half.
    float own[PARTS], other[PARTS], cosine[PARTS], sine[PARTS];
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
        const int at = i * kLanes + lane;
        own[i] = at < p.size ? load_number<D>(head + at) : 0.f;
        other[i] = sine[i] = 0.f;
        cosine[i] = 1.f;
        if (at < p.rotary) {
            other[i] = load_number<D>(head + (at < half ? at + half : at - half));
            cosine[i] = arch::load_float(cosines + at);
            sine[i] = arch::load_float(sines + at);
        }
    }
    if (norm != nullptr) {
        float weight[PARTS], of_other[PARTS], squares = 0.f;
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            const int at = i * kLanes + lane;
            weight[i] = at < p.size ? arch::load_float(norm + at) : 0.f;
            of_other[i] = at < p.rotary ? arch::load_float(norm + (at < half ? at + half : at - half)) : 0.f;
            squares += own[i] * own[i];
        }
        const float factor = arch::inverse_root(sum_of_warp(squares) / static_cast<float>(p.size) + p.eps);
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            own[i] *= factor * weight[i];
            other[i] *= factor * of_other[i];
        }
    }
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
        const int at = i * kLanes + lane;
        const float turned = own[i] * cosine[i] + (at < half ? -other[i] : other[i]) * sine[i];
        const uint16_t bits = static_cast<uint16_t>(pair_of<D>(turned, 0.f));
        if (at < padded_size(p.size)) arch::store_shared_float16(to + 2 * at, bits);
        if (cache != nullptr && at < p.size) arch::store_float16(cache + at, bits);
    }
}

// The queries of a block; in the last slice also the new key and value, which the first pass stores in the cache. There for
// all after a barrier. Nobody reads them from the cache in this launch. Rows of no head may hold anything: a row of a product
// depends on its own numbers alone, and theirs are never stored.
template <int D, int PARTS>
AWQBENCH_DEVICE void prepare_heads(const Attend& p, const Part& part, int warp, arch::Shared shared) {
    const int lane = arch::thread() % kLanes, pitch = attend_pitch(p.size), queries = p.key_heads * p.group;
    const uint16_t* const token = p.qkv + static_cast<int64_t>(part.sequence) * (queries + 2 * p.key_heads) * p.size;
    const uint16_t* const query = token + (part.key_head * p.group + part.head) * p.size;
    const uint16_t* const key = token + (queries + part.key_head) * p.size;
    const arch::Shared rows = shared + kQueriesAt;
    const int64_t place = (static_cast<int64_t>(part.sequence * p.key_heads + part.key_head) * p.capacity + part.end - 1) * p.size;
    const bool stores = part.pass == 0;
    // The key first, by the warp that has the fewest queries.
    if (part.last && warp == p.warps - 1) {
        prepare_head<D, PARTS>(p, key, p.key_norm, part.position, rows + kMostHeads * pitch, stores ? p.keys + place : nullptr);
        const uint16_t* const value = key + p.key_heads * p.size;
        for (int piece = lane; piece < padded_size(p.size) / 8; piece += kLanes) {
            const bool beyond = piece * 8 >= p.size;
            const arch::Word4 v = beyond ? arch::Word4{} : arch::load_words(value + piece * 8);
            arch::store_shared4(rows + (kMostHeads + 1) * pitch + piece * 16, v);
            if (stores && !beyond) arch::store_words(p.values + place + piece * 8, v);
        }
    }
    for (int row = warp; row < part.heads; row += p.warps)
        prepare_head<D, PARTS>(p, query + row * p.size, p.query_norm, part.position, rows + row * pitch, nullptr);
}

}  // namespace awqbench
