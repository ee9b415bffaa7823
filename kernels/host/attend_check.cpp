// Runs the attention kernel on the CPU and holds it against float64.
//
// attend_check < cases: a line is "values batch heads key_heads size capacity rotary length steps padding window cap norms
// dtype processors". `values`: random; onehot (each head's query finds one key, another in each: the value comes out to
// the bit); even (all scores are 0, values integers: the mean). `steps` tokens one after another from `length` on;
// `padding`: the first sequence has so many places of it, the next a third less, ... `processors`: of the simulated chip,
// a negative number for one with little shared memory.
// What must not be seen is NaN: places after the length, of padding and before the window, rows of the tables for other
// positions. Each case runs with blocks and warps in three orders, output and partial sums poisoned: the same bits in the
// output and in the cache are expected. Prints a line per case; exits 1 if one failed, 70 for what the simulation caught.
#include <cmath>
#include <iostream>
#include <sstream>
#include <string>

#include "../cuda/attend.cu"

namespace {

struct Case {
    std::string values;
    int64_t batch, heads, key_heads, size, capacity, rotary, length, steps, padding, window;
    double cap;
    int norms, dtype, processors;
};

struct Buffer {  // aligned as an allocation on a GPU is
    std::vector<char> memory;
    char* data;
    std::size_t bytes;
    explicit Buffer(std::size_t count) : memory(count + 256), bytes(count) {
        data = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256);
    }
    template <class T>
    T* as() { return reinterpret_cast<T*>(data); }
};

double normal(std::mt19937& random) {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += (random() % 65536 + .5) / 65536;
    return sum;
}

struct Check {
    const Case& c;
    std::mt19937 random;
    int64_t group, row;  // numbers in a row of qkv
    double scale;
    const double eps = 1e-3;
    std::vector<int64_t> padding;
    std::vector<float> query_norm, key_norm, cosines, sines;
    std::vector<uint16_t> keys, values;                 // as the steps leave them
    std::vector<std::vector<uint16_t>> tokens;          // qkv of each step
    std::vector<std::vector<double>> expected;          // y of each step
    double error = 0, rounding = 0, norm = 0, worst = 0;  // rounding: what the right result loses

    explicit Check(const Case& given)
        : c(given), random(static_cast<uint32_t>(c.size * 31 + c.length * 7 + c.heads + c.dtype)), group(c.heads / c.key_heads),
          row((c.heads + 2 * c.key_heads) * c.size), scale(c.values == "onehot" ? 1. : 1 / std::sqrt(static_cast<double>(c.size))) {}

    double number(uint16_t bits) const { return awqbench::host::to_float(c.dtype, bits); }
    uint16_t rounded(double value) const { return awqbench::host::to_bits(c.dtype, value); }
    std::size_t place(int64_t b, int64_t k, int64_t at) const {
        return static_cast<std::size_t>(((b * c.key_heads + k) * c.capacity + at) * c.size);
    }
    int64_t first_of(int64_t b, int64_t length) const {
        const int64_t first = std::min(padding[b], length);
        return c.window > 0 ? std::max(first, length + 1 - c.window) : first;
    }

    void make() {
        const bool onehot = c.values == "onehot", even = c.values == "even";
        const auto draw = [&](bool key) {
            if (onehot && key) return random() % 2 ? 1. : -1.;
            return even ? static_cast<double>(static_cast<int>(random() % 17) - 8) : normal(random);
        };
        for (int64_t b = 0; b < c.batch; ++b) padding.push_back(c.padding * (3 - b % 3) / 3);
        for (int64_t i = 0; i < c.size; ++i) {
            query_norm.push_back(static_cast<float>(.5 + random() % 1000 / 1000.));
            key_norm.push_back(static_cast<float>(.5 + random() % 1000 / 1000.));
        }
        cosines.assign(static_cast<std::size_t>(c.capacity * c.rotary), NAN);
        sines = cosines;
        for (int64_t step = 0; step < c.steps; ++step)
            for (int64_t b = 0; b < c.batch; ++b) {
                const int64_t position = std::max<int64_t>(0, c.length + step - padding[b]);
                for (int64_t i = 0; i < c.rotary; ++i) {
                    const double angle = position * std::pow(100., -2. * (i % (c.rotary / 2)) / c.rotary);
                    cosines[position * c.rotary + i] = static_cast<float>(std::cos(angle));
                    sines[position * c.rotary + i] = static_cast<float>(std::sin(angle));
                }
            }
        keys.assign(place(c.batch, 0, 0), 0xffff);  // NaN
        values = keys;
        for (int64_t b = 0; b < c.batch; ++b)
            for (int64_t k = 0; k < c.key_heads; ++k)
                for (int64_t at = first_of(b, c.length); at < c.length; ++at)
                    for (int64_t i = 0; i < c.size; ++i) {
                        keys[place(b, k, at) + i] = rounded(draw(true));
                        values[place(b, k, at) + i] = rounded(draw(false));
                    }
        for (int64_t step = 0; step < c.steps; ++step) {
            std::vector<uint16_t> token(static_cast<std::size_t>(c.batch * row));
            for (int64_t i = 0; i < c.batch * row; ++i) {
                const int64_t head = i % row / c.size;
                token[i] = rounded(even && head < c.heads ? 0 : draw(head >= c.heads && head < c.heads + c.key_heads));
            }
            tokens.push_back(token);
            step_in_double(step);
        }
    }

    // A head after norm and rotary, in double, then rounded.
    std::vector<double> prepared(const uint16_t* head, const std::vector<float>& weight, int64_t position) const {
        std::vector<double> x;
        double squares = 0;
        for (int64_t i = 0; i < c.size; ++i) {
            x.push_back(number(head[i]));
            squares += x[i] * x[i];
        }
        if (c.norms)
            for (int64_t i = 0; i < c.size; ++i) x[i] *= weight[i] / std::sqrt(squares / c.size + static_cast<float>(eps));
        std::vector<double> turned = x;
        for (int64_t i = 0; i < c.rotary; ++i) {
            const double other = i < c.rotary / 2 ? -x[i + c.rotary / 2] : x[i - c.rotary / 2];
            turned[i] = x[i] * cosines[position * c.rotary + i] + other * sines[position * c.rotary + i];
        }
        for (double& value : turned) value = number(rounded(value));
        return turned;
    }

    void step_in_double(int64_t step) {
        std::vector<uint16_t>& token = tokens[step];
        const int64_t length = c.length + step;
        std::vector<double> y(static_cast<std::size_t>(c.batch * c.heads * c.size));
        for (int64_t b = 0; b < c.batch; ++b) {
            const int64_t position = std::max<int64_t>(0, length - padding[b]), first = first_of(b, length);
            for (int64_t k = 0; k < c.key_heads; ++k) {
                const uint16_t* const key = &token[b * row + (c.heads + k) * c.size];
                const std::vector<double> made = prepared(key, key_norm, position);
                for (int64_t i = 0; i < c.size; ++i) {
                    keys[place(b, k, length) + i] = rounded(made[i]);
                    values[place(b, k, length) + i] = key[c.key_heads * c.size + i];
                }
            }
            for (int64_t h = 0; h < c.heads; ++h) {
                const int64_t k = h / group;
                uint16_t* const query = &token[b * row + h * c.size];
                if (c.values == "onehot") {  // the key of a place that goes round with the head, the last ones first
                    const int64_t target = length - (h * 5 + b) % (length + 1 - first);
                    for (int64_t i = 0; i < c.size; ++i) query[i] = rounded(30 * number(keys[place(b, k, target) + i]));
                }
                const std::vector<double> q = prepared(query, query_norm, position);
                std::vector<double> scores;
                double most = -INFINITY, sum = 0;
                for (int64_t at = first; at <= length; ++at) {
                    double score = 0;
                    for (int64_t i = 0; i < c.size; ++i) score += q[i] * number(keys[place(b, k, at) + i]);
                    score *= scale;
                    if (c.cap > 0) score = c.cap * std::tanh(score / c.cap);
                    scores.push_back(score);
                    most = std::max(most, score);
                }
                for (double& score : scores) sum += score = std::exp(score - most);
                for (int64_t i = 0; i < c.size; ++i) {
                    double weighted = 0;
                    for (int64_t at = first; at <= length; ++at) weighted += scores[at - first] * number(values[place(b, k, at) + i]);
                    y[(b * c.heads + h) * c.size + i] = weighted / sum;
                }
            }
        }
        expected.push_back(y);
    }

    // NaN where nothing may be read: the cache as it is before the first step, the places that a later one sees apart.
    void poison(uint16_t* cache, const std::vector<uint16_t>& full) const {
        std::memcpy(cache, full.data(), full.size() * 2);
        for (int64_t b = 0; b < c.batch; ++b)
            for (int64_t k = 0; k < c.key_heads; ++k)
                std::memset(cache + place(b, k, c.length), 0xff, static_cast<std::size_t>((c.capacity - c.length) * c.size * 2));
    }

    // Places that hold tokens are read only, the new one's is written only, no others are touched.
    void allow(const uint16_t* cache, int64_t length) const {
        const std::size_t one = static_cast<std::size_t>(c.size) * 2;
        for (int64_t b = 0; b < c.batch; ++b)
            for (int64_t k = 0; k < c.key_heads; ++k) {
                const int64_t first = first_of(b, length);
                simt::allow(cache + place(b, k, first), one * static_cast<std::size_t>(length - first), false);
                simt::allow(cache + place(b, k, length), one, true, false);
            }
    }

    std::string held(int64_t step, const uint16_t* y) {
        const double unit = c.dtype == awqbench::kHalf ? std::exp2(-11) : std::exp2(-8);
        for (std::size_t i = 0; i < expected[step].size(); ++i) {
            const double right = expected[step][i], found = number(y[i]), difference = std::fabs(found - right);
            if (c.values != "random") {
                if (found == number(rounded(right))) continue;
                return "step " + std::to_string(step) + " number " + std::to_string(i) + ": " + std::to_string(found) + " is not " +
                       std::to_string(right);
            }
            if (!(difference < 1e30)) return "not finite";
            error += difference * difference;
            rounding += std::pow(number(rounded(right)) - right, 2);
            norm += right * right;
            worst = std::max(worst, difference / (unit * std::fabs(right) + unit));
        }
        return "";
    }

    std::string stored(const uint16_t* cache, const std::vector<uint16_t>& right, bool exact) const {
        for (std::size_t i = 0; i < right.size(); ++i) {
            if (cache[i] == right[i]) continue;
            const double a = number(cache[i]), b = number(right[i]);
            // A sum in float32 may round to the neighbour of what a sum in double rounds to.
            if (exact || !(std::fabs(a - b) <= (c.dtype == awqbench::kHalf ? 2e-3 : 1e-2) * std::fabs(b) + 1e-6))
                return "the cache holds " + std::to_string(a) + " for " + std::to_string(b) + " at " + std::to_string(i);
        }
        return "";
    }

    std::string run() {
        using namespace awqbench;
        simulated_device() = {std::abs(c.processors), 227 * 1024, 228 * 1024, true, true};
        if (c.processors < 0) simulated_device() = {-c.processors, 99 * 1024, 100 * 1024, false, false};
        make();
        const std::size_t y_numbers = static_cast<std::size_t>(c.batch * c.heads * c.size);
        Buffer qkv(tokens[0].size() * 2), cos(cosines.size() * 4), sin(sines.size() * 4), k(keys.size() * 2), v(values.size() * 2);
        Buffer y(y_numbers * 2), length(8), pad(c.batch * 8), q_norm(c.size * 4), k_norm(c.size * 4);
        const int64_t workspace_bytes = awqbench_cuda_attend_workspace(c.batch, c.heads, c.key_heads, c.size, c.capacity, 0);
        Buffer workspace(static_cast<std::size_t>(workspace_bytes));
        std::memcpy(cos.data, cosines.data(), cos.bytes);
        std::memcpy(sin.data, sines.data(), sin.bytes);
        std::memcpy(pad.data, padding.data(), pad.bytes);
        std::memcpy(q_norm.data, query_norm.data(), q_norm.bytes);
        std::memcpy(k_norm.data, key_norm.data(), k_norm.bytes);
        std::memset(workspace.data, 0, kCounterBytes);

        std::vector<char> before;
        for (const simt::Order order : {simt::Order::kForward, simt::Order::kBackward, simt::Order::kShuffled}) {
            simt::machine().order = order;
            poison(k.as<uint16_t>(), keys);
            poison(v.as<uint16_t>(), values);
            std::vector<char> after;
            for (int64_t step = 0; step < c.steps; ++step) {
                std::memset(y.data, 0xff, y.bytes);
                std::memset(workspace.data + kCounterBytes, 0xff, static_cast<std::size_t>(workspace_bytes - kCounterBytes));
                std::memcpy(qkv.data, tokens[step].data(), qkv.bytes);
                *length.as<int64_t>() = c.length + step;
                simt::forget_ranges();
                for (const Buffer* input : {&qkv, &cos, &sin, &length, &pad, &q_norm, &k_norm}) simt::allow(input->data, input->bytes, false);
                simt::allow(workspace.data, workspace.bytes, true);
                simt::allow(y.data, y.bytes, true, false);
                allow(k.as<uint16_t>(), c.length + step);
                allow(v.as<uint16_t>(), c.length + step);
                // Once twice, the second launch begun before the first: the same bits once more.
                const int times = order == simt::Order::kShuffled && step == 0 ? 2 : 1;
                simt::machine().early = 2 * (times - 1);
                int error_code = 0;
                for (int i = 0; i < times; ++i)
                    error_code += awqbench_cuda_attend(
                        qkv.data, cos.as<float>(), sin.as<float>(), k.data, v.data, length.as<int64_t>(),
                        c.padding ? pad.as<int64_t>() : nullptr, c.norms ? q_norm.as<float>() : nullptr,
                        c.norms ? k_norm.as<float>() : nullptr, y.data, workspace.data, workspace_bytes, c.batch, c.heads, c.key_heads,
                        c.size, c.capacity, c.rotary, c.window, eps, scale, c.cap, c.dtype, 1, nullptr);
                simt::finish();
                simt::machine().early = 0;
                if (error_code) return "error " + std::to_string(error_code);
                for (int64_t i = 0; i < kCounterBytes; ++i)
                    if (workspace.data[i] != 0) return "a counter was left at work";
                after.insert(after.end(), y.data, y.data + y.bytes);
                if (order == simt::Order::kForward)
                    if (const std::string wrong = held(step, y.as<uint16_t>()); !wrong.empty()) return wrong;
            }
            after.insert(after.end(), k.data, k.data + k.bytes);
            after.insert(after.end(), v.data, v.data + v.bytes);
            if (before.empty()) before = after;
            if (before != after) return "bits depend on the order of blocks";
        }
        if (const std::string wrong = stored(k.as<uint16_t>(), keys, false); !wrong.empty()) return "keys: " + wrong;
        if (const std::string wrong = stored(v.as<uint16_t>(), values, true); !wrong.empty()) return "values: " + wrong;
        if (c.values != "random") return "exact";
        std::ostringstream text;
        const double relative = std::sqrt(error / norm), limit = c.dtype == kHalf ? 1e-3 : 6e-3;
        // Where queries and keys are what they were, there is no error but the last rounding.
        const double over = std::sqrt(error / rounding);
        const bool once = !c.norms && c.rotary == 0;
        text << (relative < limit && worst <= 2 && !(once && over > 1.01) ? "" : "too large: ") << "relative error " << relative
             << ", " << over << " of rounding alone, worst number " << worst << " of its bound";
        return text.str();
    }
};

}  // namespace

int main() {
    std::string line;
    int failures = 0;
    while (std::getline(std::cin, line)) {
        std::istringstream in(line);
        Case c;
        if (!(in >> c.values >> c.batch >> c.heads >> c.key_heads >> c.size >> c.capacity >> c.rotary >> c.length >> c.steps >>
              c.padding >> c.window >> c.cap >> c.norms >> c.dtype >> c.processors)) {
            std::cerr << "not a case: " << line << "\n";
            return 2;
        }
        const std::string result = Check(c).run();
        const bool good = result.rfind("exact", 0) == 0 || result.rfind("relative", 0) == 0;
        failures += !good;
        std::cout << (good ? "ok   " : "FAIL ") << line << ": " << result << std::endl;
    }
    return failures ? 1 : 0;
}
