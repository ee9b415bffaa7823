// x on its way to the tensor cores: a ring of stages in shared memory, each a k tile of all tokens of a tile.
//
// Four warps fill it with 16-byte copies, eight empty it. A stage goes through two barriers in shared memory: `full`, at
// which each filling warp arrives, and `empty`, at which each multiplying warp does. The copies are ordinary writes and
// the tensor cores read through another proxy, so a writer waits for its copies, fences, and only then arrives; an arrival
// that the copies make by themselves (cp.async.mbarrier.arrive) would come before any fence.
#pragma once

#include "gemm_inputs.h"
#include "prefill_plan.h"

namespace awqbench {

template <int NT, int STAGES, int FILLERS, int USERS>
struct Ring {
    static constexpr int kStageBytes = AtomInputs<NT>::tile_bytes(), kBytes = STAGES * kStageBytes;
    static constexpr int kBarrierBytes = 2 * STAGES * 8;
    arch::Shared stages, barriers;
    int stage = 0;
    uint32_t parity = 0;

    AWQBENCH_DEVICE Ring(arch::Shared ring, arch::Shared barrier) : stages(ring), barriers(barrier) {}
    // One thread, before all else; then a barrier of the block.
    AWQBENCH_DEVICE void init() const {
        for (int s = 0; s < STAGES; ++s) {
            arch::barrier_init(full(s), FILLERS);
            arch::barrier_init(empty(s), USERS);
        }
        arch::barrier_fence();
    }
    AWQBENCH_DEVICE arch::Shared full(int s) const { return barriers + s * 16; }
    AWQBENCH_DEVICE arch::Shared empty(int s) const { return barriers + s * 16 + 8; }
    AWQBENCH_DEVICE arch::Shared at(int s) const { return stages + s * kStageBytes; }
    AWQBENCH_DEVICE static int before(int s, int by) { return s >= by ? s - by : s - by + STAGES; }
    AWQBENCH_DEVICE void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
    AWQBENCH_DEVICE void wait_full() const { arch::barrier_wait(full(stage), parity); }
    AWQBENCH_DEVICE void wait_empty() const { arch::barrier_wait(empty(stage), parity ^ 1); }  // at first all are
    AWQBENCH_DEVICE void arrive(arch::Shared barrier) const {
        if (arch::thread() % kLanes == 0) arch::barrier_arrive(barrier);
    }
};

// The filling warps: all parts of a block, AHEAD stages on their way before the oldest is handed over. What lies beyond M
// or K is zeros: padded weights are (0 - zero point), not 0.
template <int NT, int AHEAD, class R>
AWQBENCH_DEVICE void fill(const Prefill& p, R ring, int thread) {
    constexpr int kPieces = kTileK / 8, kRows = 128 / kPieces, kCopies = 8 * NT / kRows;
    const int row = thread / kPieces, piece = thread % kPieces;
    const arch::Shared place = static_cast<arch::Shared>(AtomInputs<NT>::place(0, row, piece));
    const auto hand_over = [&](int stage) {
        arch::fence_for_group();
        arch::sync_warp();
        ring.arrive(ring.full(stage));
    };
    PrefillWalk walk(p, arch::block());
    int on_their_way = 0;
    for (PrefillPart part; walk.next(p, part);) {
        const int token = part.token_tile * 8 * NT + row;
        const int rows = p.M > token ? (p.M - token - 1) / kRows + 1 : 0;
        const uint16_t* from = static_cast<const uint16_t*>(p.x) + token * p.x_stride + part.begin * kTileK + piece * 8;
        for (int k_tile = part.begin; k_tile < part.end; ++k_tile, from += kTileK) {
            const bool beyond = k_tile * kTileK + piece * 8 >= p.K;
            ring.wait_empty();
            const arch::Shared to = ring.at(ring.stage) + place;
#pragma unroll
            for (int i = 0; i < kCopies; ++i)  // filled with zeros, it reads nothing
                arch::copy16(to + i * kRows * (kTileK * 2), from + i * kRows * p.x_stride, beyond || i >= rows);
            arch::copies_commit();
            if (on_their_way == AHEAD) {
                arch::copies_wait_but<AHEAD>();
                hand_over(R::before(ring.stage, AHEAD));
            } else {
                ++on_their_way;
            }
            ring.advance();
        }
    }
    arch::copies_wait();
    for (; on_their_way > 0; --on_their_way) hand_over(R::before(ring.stage, on_their_way));
}

}  // namespace awqbench
