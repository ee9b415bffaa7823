// Runs a CUDA kernel's source on the CPU, to find its errors without a GPU: blocks one after another, in an order of
// choice; the threads of a block as fibers, warp by warp, in an order of choice.
//
// What it watches: every access to global memory lies in a registered range; shared memory starts as NaN and is checked
// for accesses of two warps to one word that no barrier orders, of the block or in memory (a clock per warp, passed on by
// barriers); what the tensor cores read there was fenced by its writer; collective instructions have all 32 lanes at the
// same instruction; copies that are in flight are NaN until waited for; somebody can always go on. An error ends the
// process with a line on stderr. Partial sums reach other blocks by a fence of the thread that stored them, or too late.
// What it can't see: other memory ordering between blocks (they don't overlap) and time.
//
// Launches run at once. With `early` blocks they are put off until finish() or a launch that may not overlap with the one
// before it; then so many blocks of each overlapping launch run up to their wait for the launch before, all of them
// before the first launch has begun, and go on when it has ended. A launch that may overlap touches only constants
// before that wait, and all of its threads wait.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
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
    bool writable, readable, constant;  // constant: no kernel's output
};

enum class Order { kForward, kBackward, kShuffled };
enum class State { kReady, kAtWarp, kAtBlock, kAtLaunch, kDone };

struct Copy {  // of cp.async: done when waited for
    uint32_t to;
    const char* from;
    int bytes, filled, group;
};

struct Store {  // to other blocks: there after a fence of the thread, else when the kernel has ended
    char* to;
    char value[16];
};

struct Lane {
    Fiber fiber;
    State state = State::kDone;
    bool waited = false;  // for the launch before
    std::vector<Copy> copies;
    std::vector<Store> stores;
    int groups = 0;        // of copies, committed
    uint64_t fenced = 0;   // writes up to this one are fenced for the tensor cores
};

// What a warp knows of the others: all that they did up to these of their own times.
constexpr int kMostWarps = 32;
struct Clock {
    std::array<uint32_t, kMostWarps> at{};
    void join(const Clock& other) {
        for (int i = 0; i < kMostWarps; ++i) at[i] = std::max(at[i], other.at[i]);
    }
};

struct Warp {
    int arrived = 0;
    const char* operation = nullptr;
    Clock clock;
    uint64_t in[kLanes][8];   // what the lanes bring to a collective instruction
    uint64_t out[kLanes][8];  // and take away
};

struct BulkCopy {  // of cp.async.bulk: done some waits later
    uint32_t to, barrier;
    const char* from;
    int bytes, delay;
};

struct WordLog {  // the last write to a word of shared memory
    int warp = -1, thread = -1;
    uint32_t time = 0;    // the warp's own
    uint64_t number = 0;  // of all writes of the block
};

struct Handed {  // what a barrier in shared memory passes on: of the phase that goes on, and of the last one
    Clock arriving, done;
};

constexpr uint32_t kSharedBase = 4096;  // no valid address is near 0

struct Launch {
    std::function<void()> body;
    int grid = 0, threads = 0, shared_bytes = 0;
    bool overlap = false;
};

struct Block {  // at work
    Launch launch;
    int block = 0, current = 0, at_block = 0, live = 0;
    std::vector<char> shared;
    std::vector<WordLog> log;
    std::vector<uint32_t> reads;  // per word and warp: its time at the last read since the last write
    std::map<uint32_t, Handed> barriers;
    uint64_t writes = 0;
    std::vector<std::unique_ptr<Lane>> lanes;
    std::vector<Warp> warps;
    std::vector<BulkCopy> bulk;
    bool progress = false;
};

struct Machine : Block {
    std::vector<Range> ranges;
    Order order = Order::kForward;
    std::mt19937 random{1};
    long long launches = 0;
    int early = 0;  // blocks of a launch that begin before the one in front of it
    bool previous_done = true;
    std::vector<Launch> queue;
    std::vector<Store> unfenced;  // of threads that have ended
};

inline Machine& machine() {
    static Machine m;
    return m;
}

inline void allow(const void* p, std::size_t bytes, bool writable, bool readable = true, bool constant = false) {
    const char* begin = static_cast<const char*>(p);
    machine().ranges.push_back({begin, begin + bytes, writable, readable, constant});
}
inline void forget_ranges() { machine().ranges.clear(); }
inline void forget_range(const void* p) {
    auto& ranges = machine().ranges;
    ranges.erase(std::remove_if(ranges.begin(), ranges.end(), [p](const Range& r) { return r.begin == p; }), ranges.end());
}

inline void check_global(const void* p, int bytes, bool write) {
    const char* at = static_cast<const char*>(p);
    const Machine& m = machine();
    if (reinterpret_cast<uintptr_t>(at) % bytes != 0) fail("unaligned access to global memory", bytes);
    for (const Range& r : m.ranges)
        if (at >= r.begin && at + bytes <= r.end) {
            if (m.early > 0 && m.launch.overlap && !r.constant && !m.lanes[m.current]->waited)
                fail("memory touched before the kernel in front has finished", at - r.begin);
            if (write && !r.writable) fail("write to an input", at - r.begin);
            if (!write && !r.readable) fail("read of an output", at - r.begin);
            return;
        }
    fail(write ? "write outside every buffer" : "read outside every buffer", m.block, m.current);
}

// Shared memory, with the check for races. `warp` -1: the copy engine, ordered by barriers in memory that aren't followed.
inline char* shared_at(uint32_t address, int bytes, bool write, int warp) {
    Machine& m = machine();
    const uint32_t at = address - kSharedBase;
    if (address < kSharedBase || at + bytes > m.shared.size()) fail("outside shared memory", at, bytes);
    if (bytes > 1 && at % std::min(bytes, 16) != 0) fail("unaligned access to shared memory", at, bytes);
    const std::size_t warps = m.warps.size();
    for (uint32_t w = at / 4; w <= (at + bytes - 1) / 4 && warp >= 0; ++w) {
        WordLog& log = m.log[w];
        uint32_t* const reads = &m.reads[w * warps];
        const Clock& known = m.warps[static_cast<std::size_t>(warp)].clock;
        if (log.warp >= 0 && log.time > known.at[log.warp]) fail(write ? "race: two writes" : "race: read after write", at);
        if (write) {
            for (std::size_t other = 0; other < warps; ++other) {
                if (reads[other] > known.at[other]) fail("race: write after read", at);
                reads[other] = 0;
            }
            log = {warp, m.current, known.at[warp], ++m.writes};
        } else {
            reads[warp] = known.at[warp];
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

// A warp's past becomes `to`'s; what it does from here on does not.
inline void hand_to(Clock& to) {
    Clock& own = machine().warps[warp_index()].clock;
    to.join(own);
    ++own.at[warp_index()];
}
// The warps from `first` on know of each other.
inline void meet(int first, int count) {
    Clock all;
    for (int w = first; w < first + count; ++w) all.join(machine().warps[w].clock);
    for (int w = first; w < first + count; ++w) {
        machine().warps[w].clock = all;
        ++machine().warps[w].clock.at[w];
    }
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
    if (m.live != m.launch.threads) fail("a barrier without the threads that have ended", m.live, m.launch.threads);
    m.at_block = 0;
    meet(0, m.launch.threads / kLanes);
    m.progress = true;
    for (auto& lane : m.lanes)
        if (lane->state == State::kAtBlock) lane->state = State::kReady;
}

inline void wait_for_previous_launch() {
    Machine& m = machine();
    if (m.launch.overlap && !m.previous_done) pause(State::kAtLaunch);
    m.lanes[m.current]->waited = true;
}

inline void lane_main() {
    Machine& m = machine();
    m.launch.body();
    Lane& lane = *m.lanes[m.current];
    if (!lane.copies.empty()) fail("a thread ended with copies on their way");
    m.unfenced.insert(m.unfenced.end(), lane.stores.begin(), lane.stores.end());
    if (m.launch.overlap && !lane.waited) fail("a thread ended without waiting for the kernel in front");
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

inline void begin_block(const Launch& launch, int block) {
    Machine& m = machine();
    const auto threads = static_cast<std::size_t>(launch.threads);
    m.launch = launch;
    m.block = block;
    while (m.lanes.size() < threads) m.lanes.push_back(std::make_unique<Lane>());
    m.lanes.resize(threads);
    m.warps.resize(threads / kLanes);
    m.shared.assign(static_cast<std::size_t>(launch.shared_bytes), '\xff');
    m.log.assign(static_cast<std::size_t>(launch.shared_bytes) / 4 + 1, WordLog{});
    m.reads.assign(m.log.size() * m.warps.size(), 0);
    m.barriers.clear();
    m.writes = 0;
    m.at_block = 0;
    m.live = launch.threads;
    m.bulk.clear();
    for (std::size_t w = 0; w < m.warps.size(); ++w) {
        m.warps[w].arrived = 0;
        m.warps[w].clock = Clock{};
        m.warps[w].clock.at[w] = 1;
    }
    for (auto& lane : m.lanes) {
        lane->fiber.prepare(lane_main);
        lane->state = State::kReady;
        lane->waited = false;
        lane->copies.clear();
        lane->stores.clear();
        lane->groups = 0;
        lane->fenced = 0;
    }
}

// Until the block ends, or waits for the launch before it: then false.
inline bool run_block() {
    Machine& m = machine();
    for (int idle = 0; m.live > 0;) {
        m.progress = false;
        for (const int warp : ordered(m.launch.threads / kLanes, m.order, m.random)) {
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
        if (idle > 2 && std::any_of(m.lanes.begin(), m.lanes.end(), [](auto& l) { return l->state == State::kAtLaunch; }))
            return false;
        if (idle > 100) fail("nobody can go on", m.block, m.live);
    }
    if (!m.bulk.empty()) fail("a block ended with bulk copies on their way", m.block);
    return true;
}

// What has been launched and put off.
inline void finish() {
    Machine& m = machine();
    const std::vector<Launch> queue = std::move(m.queue);
    m.queue.clear();
    std::vector<std::vector<Block>> begun(queue.size());
    m.previous_done = false;
    for (std::size_t i = 1; i < queue.size(); ++i)
        for (int block = 0; block < std::min(m.early, queue[i].grid); ++block) {
            begin_block(queue[i], block);
            if (run_block()) fail("a block ended before the kernel in front", block);
            begun[i].push_back(std::move(m));  // its part that is a Block
            static_cast<Block&>(m) = Block{};
        }
    m.previous_done = true;
    for (std::size_t i = 0; i < queue.size(); ++i) {
        for (const int block : ordered(queue[i].grid, m.order, m.random)) {
            if (block < static_cast<int>(begun[i].size())) {
                static_cast<Block&>(m) = std::move(begun[i][static_cast<std::size_t>(block)]);
                for (auto& lane : m.lanes)
                    if (lane->state == State::kAtLaunch) lane->state = State::kReady;
            } else {
                begin_block(queue[i], block);
            }
            run_block();
        }
        for (const Store& store : m.unfenced) std::memcpy(store.to, store.value, sizeof store.value);
        m.unfenced.clear();
    }
}

// Stands for kernel<<<grid, threads, shared_bytes>>>.
inline void launch(std::function<void()> body, int grid, int threads, int shared_bytes, bool overlap = false) {
    Machine& m = machine();
    if (threads % kLanes != 0 || threads < kLanes || threads > 1024) fail("threads per block", threads);
    ++m.launches;
    if (!overlap) finish();
    m.queue.push_back({std::move(body), grid, threads, shared_bytes, overlap});
    if (m.early == 0) finish();
}

}  // namespace simt
