// Runs the dequantize kernel on the CPU (simt.h): what it reads, writes and shares is watched.
//
//   dequantize_check TILES STEPS N K GROUP DTYPE OUT     W [N, K], with blocks and warps in three orders
#include <cstdio>
#include <string>

#include "../cuda/dequantize.cu"

namespace {

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "%s\n", what.c_str());
    std::exit(1);
}

// Aligned as an allocation on a GPU is, and readable to its last byte but no further.
struct Buffer {
    std::vector<char> memory;
    char* data;
    std::size_t bytes;

    Buffer(std::size_t size, bool writable) : memory(size + 512, '\xff'), bytes(size) {
        data = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256);
        simt::allow(data, bytes, writable);
    }
    void load(const char* path) {
        std::FILE* const file = std::fopen(path, "rb");
        if (!file || std::fread(data, 1, bytes, file) != bytes || std::fgetc(file) != EOF) fail(std::string("not a weight: ") + path);
        std::fclose(file);
    }
};

}  // namespace

int main(int count, char** at) {
    if (count != 8) fail("seven arguments: see the top of dequantize_check.cpp");
    const int64_t N = std::atoll(at[3]), K = std::atoll(at[4]), group = std::atoll(at[5]);
    const int dtype = std::atoi(at[6]);
    Buffer tiles(static_cast<std::size_t>(tiles_bytes(N, K)), false);
    Buffer steps(static_cast<std::size_t>(steps_bytes(N, K / group)), false);
    Buffer weights(static_cast<std::size_t>(2 * N * K), true);
    tiles.load(at[1]);
    steps.load(at[2]);
    std::vector<char> before;
    for (const simt::Order order : {simt::Order::kForward, simt::Order::kBackward, simt::Order::kShuffled}) {
        simt::machine().order = order;
        std::memset(weights.data, 0xff, weights.bytes);
        if (const int error = awqbench_cuda_dequantize(tiles.data, steps.data, weights.data, N, K, group, dtype, nullptr))
            fail("error " + std::to_string(error));
        if (before.empty()) before.assign(weights.data, weights.data + weights.bytes);
        if (std::memcmp(before.data(), weights.data, weights.bytes) != 0) fail("bits depend on the order of blocks");
    }
    std::FILE* const file = std::fopen(at[7], "wb");
    if (!file || std::fwrite(weights.data, 1, weights.bytes, file) != weights.bytes || std::fclose(file) != 0) fail("cannot write");
}
