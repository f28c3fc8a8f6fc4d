// Grouped attention of a batch after a shared prefix, its result quantised with a step for each token.
//
// query [B, S, heads * D], key and value [B, S, groups * D] float32, as the projections give them; cosine, sine
// [B, S, D / 2], the rotation of queries and keys (not interleaved); past_key, past_value [1, groups, P, D], rotated
// already; mask [1, 1, S, P + S], true for keys that are seen, which must be the first ones of each row; floor, levels and
// zero as in SwigluQuantize; extend [1] bool; quantised [B, S, heads * D] uint8; token_scale [B, S, 1]; present_key,
// present_value [B, groups, P + S, D], what a later batch takes as its past, or of 0 rows where `extend` is false.
#pragma once
#include "attend_floats.h"
#ifdef __AVX512F__
#include "attend_halves.h"
#endif
#include "kernel.h"
#include "quantise.h"
#include "scratch.h"
#include "units.h"

struct AttendQuantize {
    static constexpr const char* NAME = "AttendQuantize";
    static constexpr ElementType INPUTS[] = {FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT32,
                                             FLOAT32, BOOL,    FLOAT32, FLOAT32, UINT8,   BOOL};
    static constexpr ElementType OUTPUTS[] = {UINT8, FLOAT32, FLOAT32, FLOAT32};
    static constexpr int64_t MOST_VECTORS = 2;  // of queries, multiplied at once
    int64_t heads = 0, groups = 0;
    float scale = 0;
    Unit unit = Unit::NONE;

    Status* start(const KernelInfo* info) {
        Status* status = api.KernelInfoGetAttribute_int64(info, "heads", &heads);
        if (!status) status = api.KernelInfoGetAttribute_int64(info, "groups", &groups);
        unit = processor::for_halves();
        return status ? status : api.KernelInfoGetAttribute_float(info, "scale", &scale);
    }

    void run(Call& call) const {
        Batch batch{call.input(0), call.input(1), call.input(2), call.input(3), call.input(4), call.input(5),
                       call.input(6), call.input(7)};
        const Tensor floor = call.input(8), levels = call.input(9), zero = call.input(10), extend = call.input(11);
        batch.rows = batch.query.sizes[0];
        batch.length = batch.query.sizes[1];
        batch.past = batch.past_key.sizes[2];
        batch.head = batch.past_key.sizes[3];
        const int64_t keys = batch.past + batch.length, head = batch.head;
        call.require(batch.query.axes == 3 && batch.past_key.axes == 4 && heads > 0 && groups > 0 && heads < 1024 &&
                         heads % groups == 0 && head > 0 && head <= WIDEST_HEAD && head % 32 == 0,
                     "AttendQuantize: heads that are not known here");
        if (!call.good()) return;
        const int64_t width = heads * head;
        const int64_t tokens = batch.rows * batch.length;
        call.require(batch.query.last() == width && batch.key.count() == tokens * groups * head &&
                         batch.value.count() == batch.key.count() && batch.cosine.count() == tokens * head / 2 &&
                         batch.sine.count() == batch.cosine.count() &&
                         batch.past_key.count() == groups * batch.past * head &&
                         batch.past_value.count() == batch.past_key.count() &&
                         batch.mask.count() == batch.length * keys && floor.count() == 1 && levels.count() == 1 &&
                         zero.count() == 1 && extend.count() == 1,
                     "AttendQuantize: sizes that do not belong together");
        const bool extends = call.good() && *extend.as<bool>();
        const int64_t scales_sizes[] = {batch.rows, batch.length, 1},
                      present_sizes[] = {extends ? batch.rows : 0, groups, keys, head};
        uint8_t* quantised = call.output<uint8_t>(0, batch.query.sizes, 3);
        float* scales = call.output<float>(1, scales_sizes, 3);
        float* present_key = call.output<float>(2, present_sizes, 4);
        float* present_value = call.output<float>(3, present_sizes, 4);
        if (!call.good()) return;
        // weights of MOST_VECTORS * W queries, [T, W] each; keys of a group [S, D]; results [S, heads * D]; seen [S]; keys and values of all groups in
        // bf16, 2 * groups * [T, D]. T: a multiple of PAIRS.
        const bool halves = unit != Unit::NONE;
        const int64_t padded = (keys + PAIRS - 1) / PAIRS * PAIRS;
        const size_t numbers = MOST_VECTORS * padded * WIDTH + batch.length * (head + width + 1) +
                               (halves ? groups * padded * head : 0);
        batch.weights = static_cast<float*>(Scratch::take(numbers * sizeof(float)));
        if (batch.weights == nullptr) return call.fail("AttendQuantize: failed to allocate memory");
        batch.rotated = batch.weights + MOST_VECTORS * padded * WIDTH;
        batch.results = batch.rotated + batch.length * head;
        batch.seen = reinterpret_cast<int32_t*>(batch.results + batch.length * width);
        batch.halves = reinterpret_cast<uint16_t*>(batch.seen + batch.length);
        batch.padded = padded;
        call.require(count_seen(batch.mask.as<uint8_t>(), batch.length, keys, batch.seen),
                     "AttendQuantize: a mask with gaps");
        if (call.good() && halves) put_past(batch);
        for (int64_t row = 0; call.good() && row < batch.rows; ++row) {
            for (int64_t group = 0; group < groups; ++group) {
                const float* values = rotate_keys(batch, row, group);
                attend(batch, row, group, values);
                if (extends) {
                    const int64_t place = (row * groups + group) * keys * head;
                    join(batch, batch.past_key, group, batch.rotated, head, present_key + place);
                    join(batch, batch.past_value, group, values, groups * head, present_value + place);
                }
            }
            for (int64_t token = 0; token < batch.length; ++token) {
                const float* result = batch.results + token * width;
                const int64_t place = row * batch.length + token;
                Floats magnitudes = {};
                for (int64_t i = 0; i < width; i += WIDTH) magnitudes = larger(magnitudes, magnitude(load(result + i)));
                scales[place] = quantise_token(result, width, magnitudes, *floor.as<float>(), *levels.as<float>(),
                                               *zero.as<uint8_t>(), quantised + place * width);
            }
        }
    }

  private:
    struct Batch {
        Tensor query, key, value, cosine, sine, past_key, past_value, mask;
        int64_t rows = 0, length = 0, past = 0, head = 0, padded = 0;
        float *weights = nullptr, *rotated = nullptr, *results = nullptr;
        int32_t* seen = nullptr;
        uint16_t* halves = nullptr;

        const float* before(const Tensor& tensor, int64_t group) const {
            return tensor.as<float>() + group * past * head;
        }
#ifdef __AVX512F__
        HalfGroup half_group(int64_t group) const {
            uint16_t* keys = halves + 2 * group * padded * head;
            return {keys, reinterpret_cast<uint32_t*>(keys + padded * head)};
        }
#endif
    };

    // How many keys each query sees. False unless they are its first ones, and at least one.
    static bool count_seen(const uint8_t* mask, int64_t length, int64_t keys, int32_t* seen) {
        for (int64_t token = 0; token < length; ++token) {
            int64_t count = 0, total = 0;
            const uint8_t* row = mask + token * keys;
            while (count < keys && row[count]) ++count;
            for (int64_t i = 0; i < keys; ++i) total += row[i] != 0;
            if (count == 0 || total != count) return false;
            seen[token] = static_cast<int32_t>(count);
        }
        return true;
    }

    // The past of a group and what comes after it, one after the other.
    static void join(const Batch& batch, const Tensor& past, int64_t group, const float* now, int64_t stride,
                     float* to) {
        const int64_t head = batch.head;
        __builtin_memcpy(to, batch.before(past, group), batch.past * head * sizeof(float));
        for (int64_t token = 0; token < batch.length; ++token)
            __builtin_memcpy(to + (batch.past + token) * head, now + token * stride, head * sizeof(float));
    }

    // One head turned by its position: the first half against the second.
    INLINE void rotate(const Batch& batch, const float* from, int64_t place, float factor, float* to) {
        const int64_t half = batch.head / 2;
        for (int64_t i = 0; i < half; i += WIDTH) {
            const Floats a = load(from + i) * factor, b = load(from + half + i) * factor;
            const Floats c = load(batch.cosine.as<float>() + place * half + i),
                         s = load(batch.sine.as<float>() + place * half + i);
            store(to + i, a * c - b * s);
            store(to + half + i, b * c + a * s);
        }
    }

    // Puts a row's keys of a group into `rotated`; returns its first value, from one to the next of which are
    // groups * D numbers.
    const float* rotate_keys(const Batch& batch, int64_t row, int64_t group) const {
        for (int64_t token = 0; token < batch.length; ++token) {
            const int64_t place = row * batch.length + token;
            rotate(batch, batch.key.as<float>() + (place * groups + group) * batch.head, place, 1.f,
                   batch.rotated + token * batch.head);
        }
        return batch.value.as<float>() + (row * batch.length * groups + group) * batch.head;
    }

    __attribute__((noinline)) void in_floats(const Batch& batch, int64_t row, int64_t group,
                                             const float* values) const {
        const FloatGroup numbers = {batch.before(batch.past_key, group), batch.before(batch.past_value, group),
                                    batch.rotated, values, batch.past, groups * batch.head};
        for (int64_t first = 0; first < batch.length * heads / groups; first += WIDTH) {
            alignas(64) float queries[WIDTH * WIDEST_HEAD], mixed[WIDTH * WIDEST_HEAD];
            const Lanes lanes = take(batch, row, group, first, queries);
            attend_queries(queries, numbers, batch.head, lanes, batch.weights, mixed);
            give(batch, group, first, mixed);
        }
    }

#ifdef __AVX512F__
    ANY_UNIT __attribute__((noinline)) void put_past(const Batch& batch) const {
        for (int64_t group = 0; group < groups; ++group) {
            const HalfGroup numbers = batch.half_group(group);
            __builtin_memset(numbers.keys, 0, 2 * batch.padded * batch.head * sizeof(uint16_t));
            put_keys(batch.before(batch.past_key, group), batch.past, batch.head, batch.head, 0, numbers);
            put_values(batch.before(batch.past_value, group), batch.past, batch.head, batch.head, 0, numbers);
        }
    }

    template <typename Multiplier>
    ANY_UNIT __attribute__((noinline)) void in_halves(const Batch& batch, int64_t row, int64_t group,
                                                      const float* values) const {
        const HalfGroup numbers = batch.half_group(group);
        put_keys(batch.rotated, batch.length, batch.head, batch.head, batch.past, numbers);
        put_values(values, batch.length, groups * batch.head, batch.head, batch.past, numbers);
        [[maybe_unused]] const typename Multiplier::Ready ready;
        constexpr int64_t VECTORS = Multiplier::VECTORS, W = WIDTH;
        static_assert(VECTORS <= MOST_VECTORS);
        for (int64_t first = 0; first < batch.length * heads / groups; first += VECTORS * W) {
            alignas(64) float queries[VECTORS * W * WIDEST_HEAD], mixed[VECTORS * W * WIDEST_HEAD];
            Lanes lanes[VECTORS];
            for (int64_t vector = 0; vector < VECTORS; ++vector)
                lanes[vector] = take(batch, row, group, first + vector * W, queries + vector * W * batch.head);
            attend_queries<Multiplier>(queries, numbers, batch.head, lanes, batch.weights, batch.padded * W, mixed);
            for (int64_t vector = 0; vector < VECTORS; ++vector)
                give(batch, group, first + vector * W, mixed + vector * W * batch.head);
        }
    }

    void attend(const Batch& batch, int64_t row, int64_t group, const float* values) const {
        if (unit == Unit::TILES)
            in_halves<HalfTiles>(batch, row, group, values);
        else if (unit == Unit::DOTS)
            in_halves<HalfDots>(batch, row, group, values);
        else
            in_floats(batch, row, group, values);
    }
#else
    void put_past(const Batch&) const {}
    void attend(const Batch& batch, int64_t row, int64_t group, const float* values) const {
        in_floats(batch, row, group, values);
    }
#endif

    // A vector of queries of a group at a time: its heads of one token side by side, then those of the next token.
    int64_t in_use(const Batch& batch, int64_t first) const {
        const int64_t left = batch.length * heads / groups - first;
        return left < 0 ? 0 : left < static_cast<int64_t>(WIDTH) ? left : WIDTH;
    }
    inline __attribute__((always_inline)) Lanes take(const Batch& batch, int64_t row, int64_t group, int64_t first,
                                                     float* queries) const {
        const int64_t shared = heads / groups, head = batch.head, lanes = in_use(batch, first);
        Lanes found = {Ints{} + 1, 1, 0x7fffffff};
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const int64_t token = (first + lane) / shared, which = group * shared + (first + lane) % shared,
                          place = row * batch.length + token;
            const int32_t seen = batch.seen[token];
            rotate(batch, batch.query.as<float>() + (place * heads + which) * head, place, scale, queries + lane * head);
            found.seen[lane] = seen;
            found.most = seen > found.most ? seen : found.most;
            found.least = seen < found.least ? seen : found.least;
        }
        if (found.least > found.most) found.least = found.most;  // of a vector without queries
        __builtin_memset(queries + lanes * head, 0, (WIDTH - lanes) * head * sizeof(float));
        return found;
    }
    inline __attribute__((always_inline)) void give(const Batch& batch, int64_t group, int64_t first,
                                                    const float* mixed) const {
        const int64_t shared = heads / groups, head = batch.head, lanes = in_use(batch, first);
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const int64_t token = (first + lane) / shared, which = group * shared + (first + lane) % shared;
            __builtin_memcpy(batch.results + (token * heads + which) * head, mixed + lane * head, head * sizeof(float));
        }
    }
};
