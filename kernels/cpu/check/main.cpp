// Holds every instruction set of the processor (or of an emulator) against double precision, through the C interface.
//
//     c++ -std=c++17 -O2 kernels/cpu/*.cpp kernels/cpu/check/main.cpp -o check && ./check
//
// A line per instruction set; the exit code is 1 when one is wrong.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "../w4a16.h"

using namespace awqbench;

struct Packed {  // as in w4a16.cpp
    const uint8_t* codes;
    const uint16_t* scales;
    const uint8_t* zeros;
    const void* bias;
    int64_t N, K, group;
    int32_t width, bias_type, isa;
};

extern "C" {
int awqbench_w4a16_best_isa();
const char* awqbench_w4a16_isa_name(int isa);
void awqbench_w4a16_linear(const Packed*, const void* x, void* out, int64_t M, int type, int threads);
void awqbench_w4a16_dequantize(const Packed*, float* out, int64_t begin, int64_t rows, int threads);
}

namespace {

// fp32 sums, and one rounding to the output's type.
constexpr double kTolerance[] = {2e-6, 2e-6 + 0x1p-8, 2e-6 + 0x1p-11};
constexpr int kGuard = 16;
constexpr uint16_t kUntouched = 0xabcd;

struct Layer {
    std::vector<uint8_t> codes, zeros;
    std::vector<uint16_t> scales;
    std::vector<float> weight, bias;  // weight [N, K], computed here from the definition
    Packed linear;

    Layer(int N, int K, int group, int width, bool biased, int isa, std::mt19937& random)
        : codes(N * K * width / 8), zeros(N * K / group), scales(N * K / group), weight(N * K), bias(biased ? N : 0) {
        const int largest = width == 8 ? 255 : 15;  // a zero point may lie one beyond: GPTQ stores it less one
        for (uint8_t& zero : zeros) zero = random() % (width == 8 ? 256 : 17);
        for (uint16_t& scale : scales) scale = float_to_half(1e-3f + 0.02f * (random() % 1000) / 1000.0f);
        scales[0] = 1;       // a subnormal half
        scales.back() = 0;
        for (float& number : bias) number = (static_cast<int>(random() % 2001) - 1000) / 1000.0f;
        for (int n = 0; n < N; ++n)
            for (int k = 0; k < K; ++k) {
                const int code = random() % (largest + 1), at = n * (K / group) + k / group;
                weight[n * K + k] = (code - zeros[at]) * half_to_float(scales[at]);
                if (width == 8) {
                    codes[n * K + k] = code;
                } else {
                    const int j = k % kBlock, half = kBlock / 2;
                    codes[(n * K + k - j) / 2 + j % half] |= j < half ? code : code << 4;
                }
            }
        linear = {codes.data(), scales.data(), zeros.data(), bias.data(), N, K, group, width, 0, isa};
        if (!biased) linear.bias = nullptr;
    }
};

struct Check {
    long cases = 0, wrong = 0;
    double worst[3] = {};

    void weights(const Layer& layer) {
        const int64_t N = layer.linear.N, K = layer.linear.K;
        std::vector<float> got(N * K);
        awqbench_w4a16_dequantize(&layer.linear, got.data(), 0, N, 1);
        wrong += got != layer.weight;  // as numbers: a zero may have either sign
        ++cases;
    }

    void product(const Layer& layer, int M, Type type, std::mt19937& random) {
        const int64_t N = layer.linear.N, K = layer.linear.K;
        std::vector<float> x(M * K);
        std::vector<uint16_t> narrow(type == Type::kFloat ? 0 : M * K);
        std::normal_distribution<float> normal;
        for (size_t i = 0; i < x.size(); ++i) {
            x[i] = normal(random);
            if (type == Type::kBfloat) x[i] = bfloat_to_float(narrow[i] = float_to_bfloat(x[i]));
            if (type == Type::kHalf) x[i] = half_to_float(narrow[i] = float_to_half(x[i]));
        }
        const size_t units = M * N * (type == Type::kFloat ? 2 : 1);  // outputs as 16-bit units, and some beyond them
        std::vector<uint16_t> out(units + kGuard, kUntouched), one(N * 2);
        const void* input = type == Type::kFloat ? static_cast<const void*>(x.data()) : narrow.data();
        awqbench_w4a16_linear(&layer.linear, input, out.data(), M, static_cast<int>(type), 1);
        for (int i = 0; i < kGuard; ++i) wrong += out[units + i] != kUntouched;
        double error = 0, largest = 0;
        for (int m = 0; m < M; ++m)
            for (int64_t n = 0; n < N; ++n) {
                double expected = layer.bias.empty() ? 0 : layer.bias[n];
                for (int64_t k = 0; k < K; ++k) expected += static_cast<double>(x[m * K + k]) * layer.weight[n * K + k];
                const double difference = std::fabs(value(out, m * N + n, type) - expected);
                if (!(difference <= error)) error = difference;
                largest = std::fmax(largest, std::fabs(expected));
            }
        // A row by itself has the same bits as in the batch.
        const int m = random() % M;
        const size_t size = type == Type::kFloat ? 4 : 2;
        const char* row = static_cast<const char*>(input) + m * K * size;
        awqbench_w4a16_linear(&layer.linear, row, one.data(), 1, static_cast<int>(type), 1);
        wrong += std::memcmp(one.data(), reinterpret_cast<char*>(out.data()) + m * N * size, N * size) != 0;
        wrong += !(error <= kTolerance[static_cast<int>(type)] * largest);
        worst[static_cast<int>(type)] = std::fmax(worst[static_cast<int>(type)], error / largest);
        ++cases;
    }

    static double value(const std::vector<uint16_t>& out, int64_t at, Type type) {
        if (type == Type::kBfloat) return bfloat_to_float(out[at]);
        if (type == Type::kHalf) return half_to_float(out[at]);
        float number;
        std::memcpy(&number, out.data() + 2 * at, sizeof number);
        return number;
    }
};

// The 16-bit number nearest to a float, the even one of two, found by trying the neighbours of a guess.
bool is_nearest(float value, uint16_t got, float (*widen)(uint16_t)) {
    if (value != value) return widen(got) != widen(got);
    const double number = value, error = std::fabs(widen(got) - number);
    for (int step : {-1, 1}) {
        const uint16_t other = got + step;
        const double distance = std::fabs(widen(other) - number);
        if (distance < error || (distance == error && got % 2)) return false;
    }
    return true;
}

// Both conversions of an instruction set: every 16-bit number there and back, and ties, near ties and any float back.
long wrong_conversions(const Convert& convert, float (*widen)(uint16_t), std::mt19937& random) {
    long wrong = 0;
    std::vector<uint16_t> all(1 << 16), back(1 << 16);
    std::vector<float> wide(1 << 16);
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    convert.widen(all.data(), wide.data(), wide.size());
    for (size_t i = 0; i < all.size(); ++i) wrong += as_bits(wide[i]) != as_bits(widen(i)) && wide[i] == wide[i];
    convert.narrow(wide.data(), back.data(), wide.size());
    for (size_t i = 0; i < all.size(); ++i)
        wrong += wide[i] == wide[i] ? back[i] != i : widen(back[i]) == widen(back[i]);
    std::vector<float> floats;
    const float largest = wide[0x7bff] > 1e6f ? wide[0x7f7f] : wide[0x7bff];
    for (size_t i = 0; i < all.size(); ++i) {
        const float tie = (wide[i] + widen(static_cast<uint16_t>(i + 1))) / 2;  // exact: one bit more than either
        if (std::fabs(wide[i]) < largest && std::isfinite(tie))
            for (int step : {-1, 0, 1}) floats.push_back(as_float(as_bits(tie) + step));
        floats.push_back(as_float(random()));
    }
    std::vector<uint16_t> narrow(floats.size());
    convert.narrow(floats.data(), narrow.data(), floats.size());
    for (size_t i = 0; i < floats.size(); ++i)
        if (std::fabs(floats[i]) < largest || floats[i] != floats[i]) wrong += !is_nearest(floats[i], narrow[i], widen);
    return wrong;
}

}  // namespace

namespace awqbench {
const Isa& choice(int isa);  // w4a16.cpp
}

int main() {
    bool right = true;
    for (int isa = 0; isa <= awqbench_w4a16_best_isa(); ++isa) {
        std::mt19937 random(7);
        Check check;
        for (int width : {4, 8})
            for (int group : {16, 32, 64, 96, 128, 288})
                for (int groups : {1, 2, 9, 18, 35}) {
                    const int K = group * groups;
                    if (K % kBlock || K > 1200) continue;
                    for (int N : {8, 13, 24}) {
                        const Layer layer(N, K, group, width, random() % 2, isa, random);
                        check.weights(layer);
                        for (int M : {1, 2, 3, 4, 5, 6, 11})
                            for (Type type : {Type::kFloat, Type::kBfloat, Type::kHalf})
                                check.product(layer, M, type, random);
                    }
                }
        check.wrong += wrong_conversions(choice(isa).bfloat, bfloat_to_float, random);
        check.wrong += wrong_conversions(choice(isa).half, half_to_float, random);
        std::printf("%s: %ld cases, %ld wrong, largest relative error %.1e float, %.1e bfloat16, %.1e half\n",
                    awqbench_w4a16_isa_name(isa), check.cases, check.wrong, check.worst[0], check.worst[1],
                    check.worst[2]);
        right = right && !check.wrong;
    }
    return right ? 0 : 1;
}
