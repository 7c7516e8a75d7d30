// Arithmetic on symbolic numbers: any operation on any numbers gives a number or an error that execute() tells.
#include "../../src/model/symbolic.h"

#include <fuzzer/FuzzedDataProvider.h>

#include <limits>
#include <stdexcept>
#include <vector>

#include "harness.h"

using namespace hesspect;

namespace {

constexpr std::array<std::int64_t, 12> kInts{0,
                                             1,
                                             -1,
                                             2,
                                             -2,
                                             3,
                                             63,
                                             64,
                                             1LL << 31,
                                             1LL << 53,
                                             std::numeric_limits<std::int64_t>::max(),
                                             std::numeric_limits<std::int64_t>::min()};
constexpr std::array<double, 12> kFloats{0.0,
                                         -0.0,
                                         0.5,
                                         -1.5,
                                         2.5,
                                         1e300,
                                         5e-324,
                                         0x1p63,
                                         -0x1p63,
                                         std::numeric_limits<double>::infinity(),
                                         -std::numeric_limits<double>::infinity(),
                                         std::numeric_limits<double>::quiet_NaN()};

c10::IValue a_value(FuzzedDataProvider& input) {
  switch (input.ConsumeIntegralInRange<int>(0, 63)) {
    case 63: return c10::IValue();
    case 0:
    case 1: return input.PickValueInArray(kInts);
    case 2:
    case 3: return input.PickValueInArray(kFloats);
    case 4:
    case 5: return input.ConsumeIntegral<std::int64_t>();
    case 6: return input.ConsumeFloatingPoint<double>();
    case 7: return input.ConsumeBool();
    default: return static_cast<std::int64_t>(input.ConsumeIntegral<std::int8_t>());
  }
}

constexpr const char* kOperators[] = {"add",   "sub",   "mul",  "floordiv", "truediv", "mod", "pow", "neg",
                                      "abs",   "eq",    "ne",   "lt",       "le",      "gt",  "ge",  "and_",
                                      "or_",   "not_",  "min",  "max",      "sum",     "ite", "int", "float",
                                      "trunc", "floor", "ceil", "round",    "sqrt"};

}  // namespace

/// A few operations, each on earlier values, as a graph has them.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  std::vector<c10::IValue> values;
  for (int step = 0; step < 16 && input.remaining_bytes() > 0; ++step) {
    const std::string target = std::string("_operator.") + input.PickValueInArray(kOperators);
    std::vector<c10::IValue> arguments;
    for (int i = input.ConsumeIntegralInRange<int>(0, 4); i > 0; --i)
      arguments.push_back(!values.empty() && input.ConsumeBool()
                              ? values[input.ConsumeIntegralInRange<std::size_t>(0, values.size() - 1)]
                              : a_value(input));
    try {
      values.push_back(evaluate(*symbolic_op_from(target), arguments));
    } catch (const std::domain_error&) {
    } catch (const c10::Error&) {  // of an argument that is no number
      bool numbers = true;
      for (const c10::IValue& argument : arguments)
        numbers = numbers && (argument.isInt() || argument.isBool() || argument.isDouble());
      const bool bits = target == "_operator.and_" || target == "_operator.or_";  // of floats: as Python's TypeError
      fuzz::require(!numbers || bits, "an error of LibTorch over numbers");
    }
  }
  return 0;
}
