// Does the simulator see what it is there for? simt_check MISTAKE runs a small kernel with that mistake in it, which must
// end with status 70; "none" runs the same kernel without one and ends with 0.
#include <cstring>
#include <string>

#include "../cuda/arch.h"

namespace {

using namespace awqbench;

struct alignas(256) Buffers {
    uint32_t in[64], out[64], next[64];
    arch::Float4 sums[2];
};

// Two warps copy 64 words through shared memory, each the words of the other.
void exchange(Buffers* b, const std::string& mistake) {
    const int thread = arch::thread();
    const arch::Shared shared = arch::shared_memory();
    if (mistake == "lanes apart" && thread == 3) arch::sync_warp();
    if (mistake == "left early" && thread == 3) return;
    const uint32_t value = arch::shuffle(arch::load_word(b->in + (mistake == "outside" ? thread + 192 : thread)), thread % kLanes);
    arch::store_shared(shared + 4 * thread, value);
    if (mistake == "beyond shared") arch::store_shared(shared + 4096, value);
    if (mistake == "write to input") arch::store_word(b->in + thread, 0);
    if (mistake != "no barrier") arch::sync_block();
    const uint32_t other = arch::load_shared(shared + 4 * (63 - thread));
    if (mistake == "overwritten") arch::store_shared(shared + 4 * thread, 0);
    arch::store_word(b->out + thread, other);
    if (mistake == "read of output") arch::load_word(b->out + thread);
    if (thread % 4 == 0) {
        arch::copy16(shared + 512 + 4 * thread, b->in + thread, false);
        if (mistake != "copy not awaited") arch::copies_wait();
    }
}

// A ring of one stage between two warpgroups: the second fills it from `in`, the first hands it to the tensor cores, which
// multiply by the unit matrix, and stores the columns.
void ring(Buffers* b, const std::string& mistake) {
    const int thread = arch::thread(), lane = thread % kLanes, warp = thread / kLanes;
    const arch::Shared stage = arch::shared_memory() + 1024, barriers = stage + 1024, turn = stage + 2048;
    if (thread == 0) {
        arch::barrier_init(barriers, 4);
        arch::barrier_init(barriers + 8, 4);
    }
    arch::sync_block();
    const auto arrive = [&](int which) {
        if (lane == 0) arch::barrier_arrive(barriers + 8 * which);
    };
    for (uint32_t round = 0; round < 3; ++round) {
        if (warp >= 4) {
            if (mistake != "filled too early") arch::barrier_wait(barriers + 8, ~round & 1);
            if (thread % 128 < 16) {  // a row of 16 bytes is 8 k of a token; 64 words are 8 tokens x 16 k
                const int token = thread % 128 / 2, piece = thread % 2;
                arch::copy16(stage + token * 128 + (piece ^ token) * 16, b->in + 4 * (thread % 128), false);
            }
            arch::copies_commit();
            if (mistake == "ring copy not awaited")
                arch::copies_wait_but<1>();
            else
                arch::copies_wait_but<0>();
            if (mistake != "no fence") arch::fence_for_group();
            arch::sync_warp();
            arrive(0);
            arch::copies_wait();
        } else {
            arch::barrier_wait(barriers, round & 1);
            const int g = lane / 4, t = lane % 4;
            float sums[1][4];
            Pair a[4] = {};  // row r of the first 16 is k r
            for (int i = 0; warp == 0 && i < 4; ++i) {
                const int row = g + i % 2 * 8, k = 2 * t + i / 2 * 8;
                a[i] = row == k ? 0x3c00u : row == k + 1 ? 0x3c000000u : 0u;
            }
            arch::group_fence();
            const uint64_t shape = uint64_t{1} << 62 | uint64_t{64} << 32 | uint64_t{1} << 16;
            arch::group_multiply<kHalf, 1>(sums, a, shape | (stage >> 4 & 0x3fff), false);
            arch::group_commit();
            if (mistake == "fragments changed") a[0] ^= 1;
            if (mistake == "released too early") arrive(1);
            if (mistake == "product not awaited")
                arch::group_wait_but<1>();
            else
                arch::group_wait_but<0>();
            if (mistake != "released too early") arrive(1);
            if (warp == 0) {
                const uint32_t r[4] = {pair_of<kHalf>(sums[0][0], sums[0][1]), pair_of<kHalf>(sums[0][2], sums[0][3]), 0, 0};
                arch::store_columns(turn + lane % 8 * 32 + lane / 8 % 2 * 16 + lane / 16 * 512, r);
            }
            if (mistake != "no group barrier") arch::sync_group(0);
            for (int i = thread; i < 64; i += 128) arch::store_word(b->out + i, arch::load_shared(turn + 4 * i));
            arch::group_wait_but<0>();
            arch::sync_group(0);
        }
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

// A lane's 8x8 matrix of 16-bit numbers comes back transposed.
void turn() {
    const arch::Shared shared = arch::shared_memory();
    const int lane = arch::thread(), g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) arch::store_shared_float16(shared + 16 * lane + 2 * i, static_cast<uint16_t>(8 * lane + i));
    arch::sync_block();
    uint32_t r[4];
    arch::load_matrices_turned(shared + 16 * lane, r);
    for (uint32_t m = 0; m < 4; ++m)
        if ((r[m] & 0xffffu) != 64 * m + 16 * t + g || r[m] >> 16 != 64 * m + 16 * t + 8 + g) simt::fail("a matrix is not turned");
}

// The second block to arrive reads what both have stored.
void add_up(Buffers* b, const std::string& mistake) {
    if (arch::thread() != 0) return;
    arch::store_partial(b->sums + arch::block(), {{1.f, 0.f, 0.f, 0.f}});
    if (mistake != "sum not fenced") arch::fence();
    if (arch::count_up(b->out) != 1) return;
    arch::fence();
    const float sum = arch::load_partial(b->sums).at[0] + arch::load_partial(b->sums + 1).at[0];
    if (sum != 2) simt::fail("a partial sum is not there");
}

// A kernel that begins while the one in front of it, whose output it reads, has yet to.
void follow(Buffers* b, const std::string& mistake) {
    const uint32_t constant = arch::load_word(b->in + arch::thread());
    if (mistake == "read before the wait") arch::load_word(b->out + arch::thread());
    if (mistake == "written before the wait") arch::store_word(b->next + arch::thread(), 0);
    if (mistake == "left without waiting" && arch::thread() == 5) return;
    arch::wait_for_previous_kernel();
    arch::store_word(b->next + arch::thread(), arch::load_word(b->out + arch::thread()) + constant);
}

}  // namespace

int main(int argc, char** argv) {
    const std::string mistake = argc > 1 ? argv[1] : "none";
    static Buffers b;
    for (uint32_t i = 0; i < 64; ++i) b.in[i] = i * i;  // as pairs of half: subnormal, exact
    simt::allow(b.in, sizeof b.in, false, true, true);
    simt::allow(b.out, sizeof b.out, true, mistake != "read of output");
    simt::allow(b.next, sizeof b.next, true);
    simt::allow(b.sums, sizeof b.sums, true);
    for (const simt::Order order : {simt::Order::kForward, simt::Order::kBackward, simt::Order::kShuffled}) {
        simt::machine().order = order;
        simt::launch([&] { exchange(&b, mistake); }, 2, 64, 1024);
        for (uint32_t i = 0; i < 64; ++i)
            if (b.out[i] != (63 - i) * (63 - i)) return 1;
        simt::launch([&] { fetch(&b, mistake); }, 1, 32, 1040);
        simt::launch([&] { ring(&b, mistake); }, 1, 256, 8192);
        for (uint32_t i = 0; i < 64; ++i)
            if (b.out[i] != b.in[i]) return 1;
        simt::launch(turn, 1, 32, 512);
        b.out[0] = 0;
        std::memset(b.sums, 0xff, sizeof b.sums);
        simt::launch([&] { add_up(&b, mistake); }, 2, 32, 16);
        simt::machine().early = 1;
        std::memset(b.out, 0xff, sizeof b.out);
        simt::launch([&] { exchange(&b, mistake); }, 2, 64, 1024);
        simt::launch([&] { follow(&b, mistake); }, 2, 64, 0, true);
        if (b.out[0] != 0xffffffffu) return 1;  // all of it is yet to come
        simt::finish();
        for (uint32_t i = 0; i < 64; ++i)
            if (b.next[i] != (63 - i) * (63 - i) + i * i) return 1;
        simt::machine().early = 0;
    }
    return 0;
}
