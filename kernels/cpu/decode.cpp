// A decoding step over all layers as one call: one parallel region, a barrier after each linear and the attention.
//
// What is small (residual stream, norms) every thread computes for itself, from the same numbers in the same order, so
// it costs no barrier. Rows of a weight are handed out as threads become free; whoever computes a row gets the same
// bits, so results depend neither on the number of threads nor on their speed.
#include "decode.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace awqbench {

const Isa& choice(int isa);  // w4a16.cpp

namespace {

constexpr ptrdiff_t kBlockRows = 32;  // weight rows handed out at a time

const Parts& parts_of(int isa) {
#if defined(__x86_64__)
    if (isa == 2) return kAvx512Parts;
    if (isa == 1) return kAvx2Parts;
#endif
    (void)isa;
    return kScalarParts;
}

// How nibbles are multiplied, or null: by the tiles of w4a16.h.
const Integer* integer_of(int isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == 2 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return &kVnni;
    if (isa >= 1) return &kMaddubs;
#endif
    (void)isa;
    return nullptr;
}

ptrdiff_t padded(ptrdiff_t floats) { return (floats + 15) / 16 * 16; }

struct Sizes {  // of the scratch, in floats
    ptrdiff_t stream, qkv, mixed, inner, scores, up, head, prepared;
    Sizes(const Model& model, ptrdiff_t M, ptrdiff_t capacity, const Integer* integer)
        : stream(padded(M * model.hidden)),
          qkv(padded(M * (model.heads + 2 * model.key_heads) * model.head_size)),
          mixed(padded(M * model.heads * model.head_size)),
          inner(padded(M * model.inner)),
          scores(padded(capacity)),
          up(padded(M * kBlockRows)),
          head(padded(model.head_size)),
          prepared(integer ? padded(M * integer->size(std::max({model.hidden, model.inner,
                                                                model.heads * model.head_size})) / 4 + 16) : 0) {}
    ptrdiff_t shared() const { return qkv + mixed + stream + inner; }
    ptrdiff_t own() const { return 2 * stream + scores + up + head + prepared; }
};

// What multiplies: a processor's way of doing things, and one thread's memory for prepared inputs.
struct Engine {
    const Isa& isa;
    const Parts& parts;
    const Integer* integer;
    void* prepared;

    ptrdiff_t group = 0;  // for which they are prepared; nibbles in other groups go through the tiles

    // Before rows of linears that read the same inputs x [M, K] are multiplied.
    void prepare(std::initializer_list<const Linear*> linears, const float* x, ptrdiff_t M) {
        group = 0;
        for (const Linear* w : linears) {
            // A lane adds up both halves of a block, so a group must be whole blocks.
            if (!integer || w->kind != kNibbles || w->group % kBlock || group) continue;
            group = w->group;
            for (ptrdiff_t m = 0; m < M; ++m)
                integer->prepare(x + m * w->K, w->K, group, static_cast<char*>(prepared) + m * integer->size(w->K));
        }
    }

    // out[m * ldo + r] = row `row + r` of the linear, for `count` rows.
    void multiply(const Linear& w, ptrdiff_t row, ptrdiff_t count, const float* x, ptrdiff_t M, float* out,
                  ptrdiff_t ldo) const {
        if (w.kind == kNibbles || w.kind == kBytes)
            for (ptrdiff_t r = 0; r < count; r += kRows) packed_rows(w, row + r, x, M, out + r, ldo);
        else
            parts.dense(w, row, count, x, M, out, ldo);
        if (w.bias)
            for (ptrdiff_t m = 0; m < M; ++m)
                for (ptrdiff_t r = 0; r < count; ++r) out[m * ldo + r] += w.bias[row + r];
    }

    void packed_rows(const Linear& w, ptrdiff_t row, const float* x, ptrdiff_t M, float* out, ptrdiff_t ldo) const {
        const Weights weights{static_cast<const uint8_t*>(w.weight), w.scales, w.zeros, w.K, w.group};
        if (w.kind == kNibbles && w.group == group) return integer->rows(weights, row, prepared, M, out, ldo);
        const Kernel& kernel = w.kind == kBytes ? isa.bytes : isa.nibbles;
        const ptrdiff_t unit = kRows * (w.K * w.kind / 8);
        const uint8_t* next = weights.codes + (row + kRows) * (w.K * w.kind / 8);
        for (ptrdiff_t at = 0; at < unit; at += 64) __builtin_prefetch(next + at);
        const ptrdiff_t tiles = (M + kernel.inputs - 1) / kernel.inputs;
        for (ptrdiff_t t = 0; t < tiles; ++t) {
            const ptrdiff_t begin = M * t / tiles, m = M * (t + 1) / tiles - begin;
            for (ptrdiff_t at = 0; at < kRows; at += kernel.width[m])
                kernel.tile[m](weights, row + at, x + begin * w.K, out + begin * ldo + at, ldo);
        }
    }
};

// One thread's view of a step.
struct Worker {
    const Model& model;
    const Cache& cache;
    Engine& engine;
    const Parts& parts;
    const int64_t* positions;
    ptrdiff_t M;
    float *qkv, *mixed, *y, *inner;                        // shared
    float *x, *normed, *scores, *up, *query;               // this thread's own

    // All of `count` linears that read the same input, outputs after each other; ends with a barrier.
    void linears(const Linear* linears, int count, const float* input, float* out, ptrdiff_t ldo) const {
        ptrdiff_t blocks = 0;
        engine.prepare({linears, linears + count - 1}, input, M);
        for (int i = 0; i < count; ++i) blocks += (linears[i].N + kBlockRows - 1) / kBlockRows;
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t block = 0; block < blocks; ++block) {
            ptrdiff_t row = block * kBlockRows, offset = 0;
            const Linear* w = linears;
            for (; row >= (w->N + kBlockRows - 1) / kBlockRows * kBlockRows; ++w) {
                row -= (w->N + kBlockRows - 1) / kBlockRows * kBlockRows;
                offset += w->N;
            }
            engine.multiply(*w, row, std::min<ptrdiff_t>(kBlockRows, w->N - row), input, M, out + offset + row, ldo);
        }
    }

    void gated(const Layer& layer) const {
        engine.prepare({&layer.gate, &layer.up}, normed, M);
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t row = 0; row < model.inner; row += kBlockRows) {
            const ptrdiff_t count = std::min<ptrdiff_t>(kBlockRows, model.inner - row);
            engine.multiply(layer.gate, row, count, normed, M, inner + row, model.inner);
            engine.multiply(layer.up, layer.up_row + row, count, normed, M, up, kBlockRows);
            for (ptrdiff_t m = 0; m < M; ++m)
                parts.gate(inner + m * model.inner + row, up + m * kBlockRows, count, model.activation);
        }
    }

    // A head of a query or key, normalised where the model does that and turned to its position.
    void turn(const float* all, ptrdiff_t heads, ptrdiff_t head, const Norm& norm, ptrdiff_t position, float* out) const {
        const ptrdiff_t size = model.head_size, half = model.rotary / 2;
        const float* from = all + head * size;
        if (norm.weight) {
            const bool whole = norm.size != size;
            const float scale = parts.inverse_rms(whole ? all : from, whole ? heads * size : size, norm.eps);
            const float* weight = norm.weight + (whole ? head * size : 0);
            for (ptrdiff_t i = 0; i < size; ++i) out[i] = from[i] * scale * weight[i];
        } else {
            std::copy(from, from + size, out);
        }
        const float *cosine = cache.cosines + position * model.rotary, *sine = cache.sines + position * model.rotary;
        for (ptrdiff_t i = 0; i < half; ++i) {
            const float first = out[i], second = out[i + half];
            out[i] = first * cosine[i] - second * sine[i];
            out[i + half] = second * cosine[i] + first * sine[i];
        }
    }

    void attention(const Layer& layer, ptrdiff_t number) const {
        const ptrdiff_t size = model.head_size, share = model.heads / model.key_heads;
        const ptrdiff_t width = (model.heads + 2 * model.key_heads) * size;
        const ptrdiff_t plane = cache.capacity * size, keys_at = model.heads * size;
        const ptrdiff_t values_at = keys_at + model.key_heads * size;
        const auto at = [&](float* cached, ptrdiff_t m, ptrdiff_t key_head) {
            return cached + ((number * M + m) * model.key_heads + key_head) * plane;
        };
#pragma omp for schedule(static)
        for (ptrdiff_t task = 0; task < M * model.key_heads; ++task) {
            const ptrdiff_t m = task / model.key_heads, head = task % model.key_heads, position = positions[m];
            const float* row = qkv + m * width;
            turn(row + keys_at, model.key_heads, head, layer.key, position, at(cache.keys, m, head) + position * size);
            std::copy_n(row + values_at + head * size, size, at(cache.values, m, head) + position * size);
        }
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t task = 0; task < M * model.heads; ++task) {
            const ptrdiff_t m = task / model.heads, head = task % model.heads, position = positions[m];
            turn(qkv + m * width, model.heads, head, layer.query, position, query);
            parts.attend(query, at(cache.keys, m, head / share), at(cache.values, m, head / share), position + 1, size,
                         static_cast<float>(model.score_scale), static_cast<float>(model.score_cap), scores,
                         mixed + task * size);
        }
    }

    void normalise(const Norm& norm, const float* from) const {
        for (ptrdiff_t m = 0; m < M; ++m) {
            const float* row = from + m * model.hidden;
            if (norm.weight) parts.norm(norm, row, model.hidden, normed + m * model.hidden);
            else std::copy_n(row, model.hidden, normed + m * model.hidden);
        }
    }

    // The residual stream takes up what a branch gave.
    void take_up(const Norm& norm) const {
        const float scale = static_cast<float>(model.residual_scale);
        if (norm.weight) {
            normalise(norm, y);
            parts.add(x, normed, M * model.hidden, scale);
        } else {
            parts.add(x, y, M * model.hidden, scale);
        }
    }

    void logits(float* out) const {
        engine.prepare({&model.head}, normed, M);
        const float divisor = static_cast<float>(model.logit_divisor), cap = static_cast<float>(model.logit_cap);
#pragma omp for schedule(dynamic, 4)
        for (ptrdiff_t row = 0; row < model.vocabulary; row += kBlockRows) {
            const ptrdiff_t count = std::min<ptrdiff_t>(kBlockRows, model.vocabulary - row);
            engine.multiply(model.head, row, count, normed, M, out + row, model.vocabulary);
            for (ptrdiff_t m = 0; m < M; ++m)
                for (ptrdiff_t r = row; r < row + count; ++r) {
                    float& logit = out[m * model.vocabulary + r];
                    logit /= divisor;
                    if (cap > 0) logit = cap * std::tanh(logit / cap);
                }
        }
    }

    void run(const int64_t* tokens, float* out) const {
        for (ptrdiff_t m = 0; m < M; ++m)
            parts.widen(model.embedding, tokens[m], static_cast<float>(model.embedding_scale), x + m * model.hidden);
        for (ptrdiff_t number = 0; number < model.count; ++number) {
            const Layer& layer = model.layers[number];
            normalise(layer.before_attention, x);
            linears(layer.qkv, layer.qkv[1].weight ? 3 : 1, normed, qkv,
                    (model.heads + 2 * model.key_heads) * model.head_size);
            attention(layer, number);
            linears(&layer.out, 1, mixed, y, model.hidden);
            take_up(layer.after_attention);
            normalise(layer.before_mlp, x);
            gated(layer);
            linears(&layer.down, 1, inner, y, model.hidden);
            take_up(layer.after_mlp);
        }
        normalise(model.last, x);
        logits(out);
    }
};

}  // namespace
}  // namespace awqbench

using namespace awqbench;

extern "C" {

// Floats of scratch that a step of M rows needs.
int64_t awqbench_decode_scratch(const Model* model, int64_t M, int64_t capacity, int threads, int isa) {
    const Sizes sizes(*model, M, capacity, integer_of(isa));
    return sizes.shared() + threads * sizes.own();
}

// One token for each of M sequences: reads tokens[m] at positions[m], appends to the cache, writes logits
// [M, vocabulary]. Positions are smaller than the cache's capacity, tokens than the vocabulary.
void awqbench_decode_step(const Model* model, const Cache* cache, const int64_t* tokens, const int64_t* positions,
                          int64_t M, float* logits, float* scratch, int threads, int isa) {
    const Integer* integer = integer_of(isa);
    const Sizes sizes(*model, M, cache->capacity, integer);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#ifdef _OPENMP
        const int thread = omp_get_thread_num();
#else
        const int thread = 0;
#endif
        float* qkv = scratch;
        float* mixed = qkv + sizes.qkv;
        float* y = mixed + sizes.mixed;
        float* inner = y + sizes.stream;
        float* x = scratch + sizes.shared() + thread * sizes.own();
        float* normed = x + sizes.stream;
        float* scores = normed + sizes.stream;
        float* up = scores + sizes.scores;
        float* query = up + sizes.up;
        Engine engine{choice(isa), parts_of(isa), integer, query + sizes.head};
        const Worker worker{*model, *cache, engine, engine.parts, positions, M,  qkv,  mixed,
                            y,      inner,  x,      normed,       scores,    up, query};
        worker.run(tokens, logits);
    }
}

// out [M, N] = x [M, K] times the transposed weight, as the step multiplies it: for a head outside of a step, and tests.
void awqbench_decode_linear(const Linear* w, const float* x, int64_t M, float* out, int threads, int isa) {
    const Integer* integer = integer_of(isa);
    std::vector<char> prepared(integer && w->kind == kNibbles ? M * integer->size(w->K) + 64 : 0);
    Engine engine{choice(isa), parts_of(isa), integer, prepared.data()};
    engine.prepare({w}, x, M);
    (void)threads;
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads) if (threads > 1)
    for (ptrdiff_t row = 0; row < w->N; row += kBlockRows)
        engine.multiply(*w, row, std::min<ptrdiff_t>(kBlockRows, w->N - row), x, M, out + row, w->N);
}
}
