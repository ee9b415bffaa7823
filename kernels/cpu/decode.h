// One decoding step of a Llama-like transformer: what describes the model, and what each instruction set supplies.
//
// The structures are filled by awqbench/runtime/native.py: fields, order and types must match it.
#pragma once

#include "w4a16.h"

namespace awqbench {

// Weight rows between what is multiplied and what is fetched. Rows are too short, and a tile reads too many of them at
// once, for the processor to see a stream; lines asked for in the order of their addresses it does see.
constexpr int kAhead = 12;

enum Kind : int64_t { kNibbles = 4, kBytes = 8, kHalf = 16, kBrain = 17, kFloat = 32 };  // how a weight is stored
enum Activation : int64_t { kSilu, kGeluTanh, kGelu, kRelu };

struct Linear {                // y = x W^T + bias, W [N, K] row-major
    const void* weight;        // packed codes, or half, bfloat16 or float values
    const uint16_t* scales;    // of packed codes, as in w4a16.h
    const uint8_t* zeros;
    const float* bias;         // [N], or null
    int64_t N, K, group;
    int64_t kind;
};

struct Norm {                  // x * weight / sqrt(mean(x^2) + eps); absent where weight is null
    const float* weight;
    int64_t size;
    double eps;
};

struct Layer {
    Linear qkv[3];             // their outputs follow each other; a model that has them in one uses the first
    Linear out;
    Linear gate, up;           // in one linear: both are it, and the rows of `up` begin at up_row
    Linear down;
    int64_t up_row;
    Norm before_attention, after_attention, before_mlp, after_mlp;
    Norm query, key;           // over a head, or over all heads at once
};

struct Model {
    const Layer* layers;
    Linear embedding;          // only its rows are read
    Linear head;
    Norm last;
    int64_t count;             // layers
    int64_t hidden, inner, heads, key_heads, head_size, rotary, vocabulary;
    int64_t activation;
    double score_scale, score_cap;          // a cap of 0 is none: cap * tanh(x / cap)
    double embedding_scale, residual_scale;
    double logit_divisor, logit_cap;
};

struct Cache {
    float* keys;               // [layers, rows, key_heads, capacity, head_size]
    float* values;
    const float* cosines;      // [capacity, rotary]: the second half repeats the first
    const float* sines;
    int64_t capacity;
};

struct Parts {                 // one table for each instruction set
    // out[m * ldo + r] for `count` rows of a weight that is not packed; each sum runs over k in one order.
    void (*dense)(const Linear&, ptrdiff_t row, ptrdiff_t count, const float* x, ptrdiff_t M, float* out, ptrdiff_t ldo);
    void (*widen)(const Linear&, ptrdiff_t row, float scale, float* out);                     // one row, to float
    void (*norm)(const Norm&, const float* x, ptrdiff_t n, float* out);                       // out may be x
    float (*inverse_rms)(const float* x, ptrdiff_t n, double eps);
    void (*gate)(float* gate, const float* up, ptrdiff_t n, int64_t activation);              // gate = f(gate) * up
    void (*add)(float* x, const float* y, ptrdiff_t n, float scale);                          // x += scale * y
    // One query over keys and values [n, size]; `scores` [n] is scratch.
    void (*attend)(const float* query, const float* keys, const float* values, ptrdiff_t n, ptrdiff_t size, float scale,
                   float cap, float* scores, float* out);
};

struct Integer {               // packed nibbles in integer arithmetic, where the processor has byte dot products
    void (*prepare)(const float* x, ptrdiff_t K, ptrdiff_t group, void* to);
    // kRows rows of M prepared inputs, laid after each other.
    void (*rows)(const Weights&, ptrdiff_t row, const void* prepared, ptrdiff_t M, float* out, ptrdiff_t ldo);
    ptrdiff_t step, bytes;     // inputs that a step takes, and what they take prepared
    ptrdiff_t size(ptrdiff_t K) const { return (K + step - 1) / step * bytes; }
};

extern const Parts kScalarParts;
#if defined(__x86_64__)
extern const Parts kAvx2Parts;
extern const Parts kAvx512Parts;
extern const Integer kMaddubs, kVnni;
#endif

}  // namespace awqbench
