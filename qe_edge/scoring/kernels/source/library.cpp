// What ONNX Runtime calls when the library is registered for a session.
#include <initializer_list>
#include <new>

#include "abi.h"
#include "add_norm_quantize.h"
#include "attend_quantize.h"
#include "swiglu_quantize.h"

Api api;

extern "C" __attribute__((visibility("default"))) Status* RegisterCustomOps(SessionOptions* options,
                                                                            const ApiBase* base) {
    api.table = base->GetApi(18);
    OpDomain* domain = nullptr;
    Status* status = api.CreateCustomOpDomain("qe_edge", &domain);
    for (const CustomOp* op : {custom_op<AddNormQuantize>(), custom_op<AttendQuantize>(), custom_op<SwigluQuantize>()})
        if (!status) status = api.CustomOpDomain_Add(domain, op);
    return status ? status : api.AddCustomOpDomain(options, domain);
}
