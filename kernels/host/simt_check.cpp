// Does the simulator see what it is there for? simt_check MISTAKE runs a small kernel with that mistake in it, which must
// end with status 70; "none" runs the same kernel without one and ends with 0.
#include <cstring>
#include <string>

#include "../cuda/arch.h"

namespace {

using namespace awqbench;

struct alignas(256) Buffers {
    uint32_t in[64], out[64];
};

// Two warps copy 64 words through shared memory, each the words of the other.
void exchange(Buffers* b, const std::string& mistake) {
    const int thread = arch::thread();
    const arch::Shared shared = arch::shared_memory();
    if (mistake == "lanes apart" && thread == 3) arch::sync_warp();
    if (mistake == "left early" && thread == 3) return;
    const uint32_t value = arch::shuffle(arch::load_word(b->in + (mistake == "outside" ? thread + 128 : thread)), thread % kLanes);
    arch::store_shared(shared + 4 * thread, value);
    if (mistake == "beyond shared") arch::store_shared(shared + 4096, value);
    if (mistake == "write to input") arch::store_word(b->in + thread, 0);
    if (mistake != "no barrier") arch::sync_block();
    const uint32_t other = arch::load_shared(shared + 4 * (63 - thread));
    if (mistake == "overwritten") arch::store_shared(shared + 4 * thread, 0);
    arch::store_word(b->out + thread, other);
    if (thread % 4 == 0) {
        arch::copy16(shared + 512 + 4 * thread, b->in + thread, false);
        if (mistake != "copy not awaited") arch::copies_wait();
    }
}

// A warp of one block fetches by bulk copy.
void fetch(Buffers* b, const std::string& mistake) {
    const arch::Shared shared = arch::shared_memory(), barrier = shared + 1024;
    if (arch::thread() == 0) {
        if (mistake != "barrier not initialized") arch::barrier_init(barrier, 1);
        arch::barrier_expect(barrier, mistake == "too few bytes" ? 512 : 256);
        arch::bulk_copy(shared, b->in, 256, barrier, 0);
    }
    arch::sync_warp();
    if (mistake != "bulk copy not awaited" && arch::thread() < kLanes) arch::barrier_wait(barrier, 0);
    if (mistake != "none" && mistake != "too few bytes") return;
    for (int i = arch::thread(); i < 64; i += kLanes)
        if (arch::load_shared(shared + 4 * i) != b->in[i]) simt::fail("the bulk copy brought something else");
}

}  // namespace

int main(int argc, char** argv) {
    const std::string mistake = argc > 1 ? argv[1] : "none";
    static Buffers b;
    for (uint32_t i = 0; i < 64; ++i) b.in[i] = i * i;
    simt::allow(b.in, sizeof b.in, false);
    simt::allow(b.out, sizeof b.out, true);
    for (const simt::Order order : {simt::Order::kForward, simt::Order::kBackward, simt::Order::kShuffled}) {
        simt::machine().order = order;
        simt::launch([&] { exchange(&b, mistake); }, 2, 64, 1024);
        for (uint32_t i = 0; i < 64; ++i)
            if (b.out[i] != (63 - i) * (63 - i)) return 1;
        simt::launch([&] { fetch(&b, mistake); }, 1, 32, 1040);
    }
    return 0;
}
