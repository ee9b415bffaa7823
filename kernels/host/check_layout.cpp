// Runs layout.h and dequant.h on the host, over every case that is countable, and for a test to hold against numpy.
//
//   check_layout                                      index maps and decoding, exhaustively; prints what was checked
//   check_layout floats OUT                           float32 of all 65536 half, then bfloat16 patterns
//   check_layout round DTYPE IN OUT                   float64 numbers to 16 bits
//   check_layout read TILES STEPS N K GROUP OUT       codes, scales and zero points in row-major order
//   check_layout weights TILES STEPS N K GROUP DTYPE OUT   what the dequantize kernel writes
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../cuda/dequant.h"
#include "../cuda/layout.h"

using namespace awqbench;

static_assert(kTileBytes == 2048 && kStepBytes == 160, "sizes of the contract");
static_assert(place_of(72, 9, 3).word == 3 * kTileWords && place_of(72, 9, 3).nibble == 7, "usable at compile time");

namespace {

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "%s\n", what.c_str());
    std::exit(1);
}

template <typename T>
std::vector<T> load(const char* path) {
    std::FILE* file = std::fopen(path, "rb");
    if (!file) fail(std::string("cannot read ") + path);
    std::vector<T> values;
    std::vector<T> part(1 << 16);
    while (const size_t count = std::fread(part.data(), sizeof(T), part.size(), file))
        values.insert(values.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(count));
    std::fclose(file);
    return values;
}

class Output {
public:
    explicit Output(const char* path) : file_(std::fopen(path, "wb")) {
        if (!file_) fail(std::string("cannot write ") + path);
    }
    ~Output() { std::fclose(file_); }
    template <typename T>
    void write(const std::vector<T>& values) {
        if (std::fwrite(values.data(), sizeof(T), values.size(), file_) != values.size()) fail("cannot write");
    }

private:
    std::FILE* file_;
};

void check_maps(int64_t N, int64_t K) {
    const int64_t rows = padded_rows(N), width = padded_k(K), columns = k_tiles(K);
    std::vector<uint8_t> seen(static_cast<size_t>(tiles_bytes(N, K) / 4));  // a bit per nibble
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t k = 0; k < width; ++k) {
            const Place place = place_of(row, k, columns);
            const Element element = element_at(place.word, place.nibble, columns);
            if (element.row != row || element.k != k) fail("the maps are no inverses");
            uint8_t& bits = seen.at(static_cast<size_t>(place.word));
            if (bits >> place.nibble & 1) fail("two codes share a place");
            bits |= static_cast<uint8_t>(1 << place.nibble);
        }
    for (const uint8_t bits : seen)
        if (bits != 0xff) fail("a place is never used");
    std::printf("maps %lld x %lld: %lld places\n", static_cast<long long>(N), static_cast<long long>(K),
                static_cast<long long>(rows * width));
}

void check_step() {
    std::vector<int> nibbles(2 * kStepBytes);
    for (int row = 0; row < kTileRows; ++row) {
        for (int i = 0; i < 4; ++i) ++nibbles.at(static_cast<size_t>(2 * scale_byte(row) + i));
        ++nibbles.at(static_cast<size_t>(2 * zero_byte(row) + zero_shift(row) / 4));
    }
    for (const int count : nibbles)
        if (count != 1) fail("a step's places overlap or leave holes");
    std::printf("step: %d bytes\n", kStepBytes);
}

// Every pattern of the low 16 bits, with another in the high 16, and every pair (z, another z) of zero points.
template <int D>
void check_decode(const char* name) {
    int64_t values = 0;
    for (uint32_t z = 0; z < 16; ++z) {
        const uint32_t other = (7 * z + 3) % 16;
        const Offsets zero = offsets<D>(z | other << 4);
        for (uint32_t low = 0; low < 65536; ++low) {
            const uint32_t word = low | (low * 40503u + 12345u) << 16;
            Pair out[4];
            decode<D>(word, zero, out);
            for (int pair = 0; pair < 4; ++pair) {
                const float expected = static_cast<float>(pair % 2 ? other : z);
                const float even = static_cast<float>(word >> 4 * pair & 15u) - expected;
                const float odd = static_cast<float>(word >> 4 * (pair + 4) & 15u) - expected;
                if (low_float<D>(out[pair]) != even || high_float<D>(out[pair]) != odd) fail("a decoded value is wrong");
                values += 2;
            }
        }
    }
    std::printf("decode %s: %lld values\n", name, static_cast<long long>(values));
}

// Every finite scale times every difference, rounded once.
template <int D>
void check_scaled(const char* name) {
    int64_t values = 0;
    for (uint32_t scale = 0; scale < 65536; ++scale) {
        if ((scale & 0x7c00u) == 0x7c00u) continue;
        const double s = host::to_float(kHalf, static_cast<uint16_t>(scale));
        for (int difference = -15; difference <= 15; ++difference, ++values) {
            const Pair found = scaled<D>(twice(host::to_bits(D, difference)), factor<D>(twice(scale)));
            const uint16_t expected = host::to_bits(D, difference * s);
            const bool zeros = (expected & 0x7fffu) == 0 && (found & 0x7fff7fffu) == 0;
            if (found != twice(expected) && !zeros) fail("a scaled weight is wrong");
        }
    }
    std::printf("scaled %s: %lld values\n", name, static_cast<long long>(values));
}

struct Weight {
    std::vector<uint32_t> tiles;
    std::vector<uint8_t> steps;
    int64_t N, K, groups, group;

    explicit Weight(char** at)
        : tiles(load<uint32_t>(at[0])), steps(load<uint8_t>(at[1])), N(std::atoll(at[2])), K(std::atoll(at[3])),
          groups(K / std::atoll(at[4])), group(std::atoll(at[4])) {
        if (static_cast<int64_t>(tiles.size()) * 4 != tiles_bytes(N, K)) fail("tiles have another size");
        if (static_cast<int64_t>(steps.size()) != steps_bytes(N, groups)) fail("steps have another size");
    }
    const uint8_t* step(int64_t row, int64_t g) const {
        return steps.data() + step_byte(row / kTileRows, g, groups);
    }
    uint16_t scale(int64_t row, int64_t g) const {
        const uint8_t* at = step(row, g) + scale_byte(static_cast<int>(row % kTileRows));
        return static_cast<uint16_t>(at[0] | at[1] << 8);
    }
    uint8_t zero_pair(int64_t row, int64_t g) const {
        return step(row, g)[zero_byte(static_cast<int>(row % kTileRows))];
    }
};

void read(const Weight& weight, const char* path) {
    std::vector<uint8_t> codes, zeros;
    std::vector<uint16_t> scales;
    for (int64_t row = 0; row < weight.N; ++row) {
        for (int64_t k = 0; k < weight.K; ++k) {
            const Place place = place_of(row, k, k_tiles(weight.K));
            codes.push_back(weight.tiles[static_cast<size_t>(place.word)] >> 4 * place.nibble & 15u);
        }
        for (int64_t g = 0; g < weight.groups; ++g) {
            scales.push_back(weight.scale(row, g));
            zeros.push_back(weight.zero_pair(row, g) >> zero_shift(static_cast<int>(row % kTileRows)) & 15);
        }
    }
    Output out(path);
    out.write(codes);
    out.write(scales);
    out.write(zeros);
}

template <int D>
void weights(const Weight& weight, const char* path) {
    std::vector<uint16_t> dense(static_cast<size_t>(weight.N * weight.K));
    const int64_t columns = k_tiles(weight.K);
    for (size_t word = 0; word < weight.tiles.size(); ++word)
        for (int pair = 0; pair < 4; ++pair) {
            const Element at = element_at(static_cast<int64_t>(word), pair, columns);
            if (at.row >= weight.N || at.k >= weight.K) continue;
            Pair out[4];
            decode<D>(weight.tiles[word], offsets<D>(weight.zero_pair(at.row, at.k / weight.group)), out);
            const Pair value = scaled<D>(out[pair], factor<D>(twice(weight.scale(at.row, at.k / weight.group))));
            dense[static_cast<size_t>(at.row * weight.K + at.k)] = static_cast<uint16_t>(value);
            dense[static_cast<size_t>(at.row * weight.K + at.k + 1)] = static_cast<uint16_t>(value >> 16);
        }
    Output(path).write(dense);
}

}  // namespace

int main(int count, char** arguments) {
    const std::string mode = count > 1 ? arguments[1] : "";
    if (mode == "floats" && count == 3) {
        std::vector<float> values;
        for (int dtype = 0; dtype < 2; ++dtype)
            for (int bits = 0; bits < 65536; ++bits)
                values.push_back(host::to_float(dtype, static_cast<uint16_t>(bits)));
        Output(arguments[2]).write(values);
    } else if (mode == "round" && count == 5) {
        std::vector<uint16_t> bits;
        for (const double value : load<double>(arguments[3])) bits.push_back(host::to_bits(std::atoi(arguments[2]), value));
        Output(arguments[4]).write(bits);
    } else if (mode == "read" && count == 8) {
        read(Weight(arguments + 2), arguments[7]);
    } else if (mode == "weights" && count == 9) {
        const Weight weight(arguments + 2);
        std::atoi(arguments[7]) == kHalf ? weights<kHalf>(weight, arguments[8]) : weights<kBfloat16>(weight, arguments[8]);
    } else if (mode.empty()) {
        check_maps(1, 32);
        check_maps(64, 64);
        check_maps(130, 224);
        check_maps(1000, 1056);
        check_maps(2049, 1408);
        check_step();
        check_decode<kHalf>("half");
        check_decode<kBfloat16>("bfloat16");
        check_scaled<kHalf>("half");
        check_scaled<kBfloat16>("bfloat16");
    } else {
        fail("unknown arguments: see the top of check_layout.cpp");
    }
}
