// What ONNX Runtime calls when the library is registered for a session.
#include <initializer_list>
#include <new>

#include "abi.h"
#include "add_norm_quantize.h"
#include "attend_quantize.h"
#include "gated_quantize.h"
#include "linear.h"
#include "linear_add_norm_quantize.h"
#include "swiglu_quantize.h"

Api api;

extern "C" __attribute__((visibility("default"))) Status* RegisterCustomOps(SessionOptions* options,
                                                                            const ApiBase* base) {
    api.table = base->GetApi(18);
    OpDomain* domain = nullptr;
    Status* status = api.CreateCustomOpDomain("qe_edge", &domain);
    for (const CustomOp* op : {custom_op<AddNormQuantize>(), custom_op<AttendQuantize>(), custom_op<GatedQuantize>(),
                               custom_op<Linear>(), custom_op<LinearAddNormQuantize>(), custom_op<SwigluQuantize>()})
        if (!status) status = api.CustomOpDomain_Add(domain, op);
    return status ? status : api.AddCustomOpDomain(options, domain);
}

// What products of int8, and of bf16, run on, as `Unit` counts.
extern "C" __attribute__((visibility("default"))) int qe_edge_unit_of_bytes() {
    return static_cast<int>(processor::for_bytes());
}
extern "C" __attribute__((visibility("default"))) int qe_edge_unit_of_halves() {
    return static_cast<int>(processor::for_halves());
}

// Weights [K, N] from 4 bits, two a byte, the lower ones first: as ONNX's QuantizeLinear of them, with divisors and zeros
// [K / 32, N]. channels is even.
extern "C" __attribute__((visibility("default"))) void qe_edge_expand(const uint8_t* fours, const float* divisors,
                                                                      const int8_t* zeros, int64_t depth,
                                                                      int64_t channels, int8_t* weights) {
    expand(fours, divisors, zeros, depth, channels, weights);
}

// How many int32 a product with these weights [K, N] needs besides.
extern "C" __attribute__((visibility("default"))) int64_t qe_edge_count_notes(int64_t depth, int64_t channels) {
    return count_notes(processor::for_bytes(), depth, channels);
}

// Weights [K, N] as products take them, packed and notes. depth and channels are multiples of 64. False if there is not enough
// memory.
extern "C" __attribute__((visibility("default"))) bool qe_edge_pack(const int8_t* weights, int64_t depth,
                                                                    int64_t channels, int8_t* packed, int32_t* notes) {
    sum_up(weights, depth, channels, notes);
#ifndef __AVX512F__
    if (processor::for_bytes() == Unit::PAIRS) return pack_pairs(weights, depth, channels, packed, notes + channels);
#endif
    pack(weights, depth, channels, packed);
    return true;
}
