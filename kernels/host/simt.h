// Runs a CUDA kernel's source on the CPU, to find its errors without a GPU: blocks one after another, in an order of
// choice; the threads of a block as fibers, warp by warp, in an order of choice.
//
// What it watches: every access to global memory lies in a registered range; shared memory starts as NaN and is checked
// for accesses of two warps to one word with no barrier between them; collective instructions have all 32 lanes at the
// same instruction; copies that are in flight are NaN until waited for; somebody can always go on. An error ends the
// process with a line on stderr. What it can't see: memory ordering between blocks (they don't overlap) and time.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>

#include "simt_fiber.h"

namespace simt {

constexpr int kLanes = 32;

[[noreturn]] inline void fail(const char* what, long long a = 0, long long b = 0) {
    std::fprintf(stderr, "simt: %s (%lld, %lld)\n", what, a, b);
    std::_Exit(70);
}

struct Range {
    const char *begin, *end;
    bool writable;
};

enum class Order { kForward, kBackward, kShuffled };
enum class State { kReady, kAtWarp, kAtBlock, kDone };

struct Copy {  // of cp.async: done when waited for
    uint32_t to;
    const char* from;
    int bytes, filled;
};

struct Lane {
    Fiber fiber;
    State state = State::kDone;
    std::vector<Copy> copies;
};

struct Warp {
    int arrived = 0;
    const char* operation = nullptr;
    uint64_t in[kLanes][8];   // what the lanes bring to a collective instruction
    uint64_t out[kLanes][8];  // and take away
};

struct BulkCopy {  // of cp.async.bulk: done some waits later
    uint32_t to, barrier;
    const char* from;
    int bytes, delay;
};

struct WordLog {  // who touched a word of shared memory since the last block barrier
    int writer = -1, reader = -1;
    uint32_t written = 0, read = 0;  // epochs
};

constexpr uint32_t kSharedBase = 4096;  // no valid address is near 0

struct Machine {
    std::vector<Range> ranges;
    std::vector<char> shared;
    std::vector<WordLog> log;
    uint32_t epoch = 1;
    std::vector<std::unique_ptr<Lane>> lanes;
    std::vector<Warp> warps;
    std::vector<BulkCopy> bulk;
    std::function<void()> body;
    int threads = 0, block = 0, grid = 0, current = 0, at_block = 0, live = 0;
    bool progress = false;
    Order order = Order::kForward;
    std::mt19937 random{1};
    long long launches = 0;
};

inline Machine& machine() {
    static Machine m;
    return m;
}

inline void allow(const void* p, std::size_t bytes, bool writable) {
    const char* begin = static_cast<const char*>(p);
    machine().ranges.push_back({begin, begin + bytes, writable});
}
inline void forget_ranges() { machine().ranges.clear(); }

inline void check_global(const void* p, int bytes, bool write) {
    const char* at = static_cast<const char*>(p);
    if (reinterpret_cast<uintptr_t>(at) % bytes != 0) fail("unaligned access to global memory", bytes);
    for (const Range& r : machine().ranges)
        if (at >= r.begin && at + bytes <= r.end) {
            if (write && !r.writable) fail("write to an input", at - r.begin);
            return;
        }
    fail(write ? "write outside every buffer" : "read outside every buffer", machine().block, machine().current);
}

// Shared memory, with the check for races. `warp` -1: the copy engine, ordered by barriers in memory that aren't followed.
inline char* shared_at(uint32_t address, int bytes, bool write, int warp) {
    Machine& m = machine();
    const uint32_t at = address - kSharedBase;
    if (address < kSharedBase || at + bytes > m.shared.size()) fail("outside shared memory", at, bytes);
    if (bytes > 1 && at % std::min(bytes, 16) != 0) fail("unaligned access to shared memory", at, bytes);
    for (uint32_t w = at / 4; w <= (at + bytes - 1) / 4 && warp >= 0; ++w) {
        WordLog& log = m.log[w];
        if (log.written == m.epoch && log.writer != warp) fail(write ? "race: two writes" : "race: read after write", at);
        if (write && log.read == m.epoch && log.reader != warp) fail("race: write after read", at);
        if (write) {
            log.written = m.epoch;
            log.writer = warp;
        } else {
            log.reader = log.read == m.epoch && log.reader != warp ? -2 : warp;  // -2: several
            log.read = m.epoch;
        }
    }
    return m.shared.data() + at;
}

inline int warp_index() { return machine().current / kLanes; }

inline void pause(State state) {
    Machine& m = machine();
    Lane& lane = *m.lanes[m.current];
    lane.state = state;
    lane.fiber.leave();
}

// All lanes of a warp meet; the last one runs `act`, then all go on. `operation` names the instruction.
template <class Act>
void with_warp(const char* operation, const Act& act) {
    Machine& m = machine();
    const int index = warp_index();
    Warp& warp = m.warps[index];
    if (warp.arrived == 0)
        warp.operation = operation;
    else if (warp.operation != operation && std::strcmp(warp.operation, operation) != 0)
        fail("lanes of a warp at different instructions", index, m.current);
    if (++warp.arrived < kLanes) return pause(State::kAtWarp);
    act(warp);
    warp.arrived = 0;
    m.progress = true;
    for (int lane = 0; lane < kLanes; ++lane) {
        Lane& other = *m.lanes[index * kLanes + lane];
        if (other.state == State::kAtWarp) other.state = State::kReady;
    }
}

inline void sync_block() {
    Machine& m = machine();
    if (++m.at_block < m.live) return pause(State::kAtBlock);
    if (m.live != m.threads) fail("a barrier without the threads that have ended", m.live, m.threads);
    m.at_block = 0;
    ++m.epoch;
    m.progress = true;
    for (auto& lane : m.lanes)
        if (lane->state == State::kAtBlock) lane->state = State::kReady;
}

inline void lane_main() {
    Machine& m = machine();
    m.body();
    Lane& lane = *m.lanes[m.current];
    if (!lane.copies.empty()) fail("a thread ended with copies on their way");
    lane.state = State::kDone;
    --m.live;
    m.progress = true;
    lane.fiber.leave();
    fail("a finished thread went on");
}

inline std::vector<int> ordered(int count, Order order, std::mt19937& random) {
    std::vector<int> list(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) list[i] = order == Order::kBackward ? count - 1 - i : i;
    if (order == Order::kShuffled) std::shuffle(list.begin(), list.end(), random);
    return list;
}

inline void run_block(int block, int shared_bytes) {
    Machine& m = machine();
    m.block = block;
    m.shared.assign(static_cast<std::size_t>(shared_bytes), '\xff');
    m.log.assign(static_cast<std::size_t>(shared_bytes) / 4 + 1, WordLog{});
    m.epoch = 1;
    m.at_block = 0;
    m.live = m.threads;
    m.bulk.clear();
    for (auto& warp : m.warps) warp.arrived = 0;
    for (auto& lane : m.lanes) {
        lane->fiber.prepare(lane_main);
        lane->state = State::kReady;
        lane->copies.clear();
    }
    for (int idle = 0; m.live > 0;) {
        m.progress = false;
        for (const int warp : ordered(m.threads / kLanes, m.order, m.random)) {
            const std::vector<int> lanes = ordered(kLanes, m.order, m.random);
            for (bool again = true; again;) {  // until the whole warp waits for others
                again = false;
                for (const int lane : lanes) {
                    const int thread = warp * kLanes + lane;
                    if (m.lanes[thread]->state != State::kReady) continue;
                    const bool before = m.progress;
                    m.progress = false;
                    m.current = thread;
                    m.lanes[thread]->fiber.enter();
                    again = again || m.progress;
                    m.progress = m.progress || before;
                }
            }
        }
        idle = m.progress ? 0 : idle + 1;
        if (idle > 100) fail("nobody can go on", block, m.live);
    }
    if (!m.bulk.empty()) fail("a block ended with bulk copies on their way", block);
}

// Stands for kernel<<<grid, threads, shared_bytes>>>.
inline void launch(std::function<void()> body, int grid, int threads, int shared_bytes) {
    Machine& m = machine();
    if (threads % kLanes != 0 || threads < kLanes || threads > 1024) fail("threads per block", threads);
    ++m.launches;
    m.body = std::move(body);
    m.threads = threads;
    m.grid = grid;
    while (static_cast<int>(m.lanes.size()) < threads) m.lanes.push_back(std::make_unique<Lane>());
    m.lanes.resize(static_cast<std::size_t>(threads));
    m.warps.resize(static_cast<std::size_t>(threads / kLanes));
    for (const int block : ordered(grid, m.order, m.random)) run_block(block, shared_bytes);
}

}  // namespace simt
