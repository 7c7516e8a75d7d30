#include "symbolic.h"

#include <cmath>
#include <map>
#include <stdexcept>

namespace hesspect {
namespace {

using c10::IValue;

bool is_float(const IValue& v) { return v.isDouble(); }

double as_double(const IValue& v) {
  if (v.isDouble()) return v.toDouble();
  if (v.isBool()) return v.toBool() ? 1.0 : 0.0;
  return static_cast<double>(v.toInt());
}

std::int64_t as_int(const IValue& v) {
  if (v.isBool()) return v.toBool() ? 1 : 0;
  return v.toInt();
}

bool as_bool(const IValue& v) {
  if (v.isBool()) return v.toBool();
  return as_double(v) != 0.0;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  if (b == 0) throw std::domain_error("integer division by zero");
  const std::int64_t q = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? q - 1 : q;
}

std::int64_t int_pow(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  for (std::int64_t i = 0; i < exponent; ++i) result *= base;
  return result;
}

template <class IntOp, class FloatOp>
IValue arithmetic(const IValue& a, const IValue& b, IntOp int_op, FloatOp float_op) {
  if (is_float(a) || is_float(b)) return float_op(as_double(a), as_double(b));
  return int_op(as_int(a), as_int(b));
}

template <class Compare>
IValue compare(const IValue& a, const IValue& b, Compare op) {
  if (is_float(a) || is_float(b)) return op(as_double(a), as_double(b));
  return op(as_int(a), as_int(b));
}

std::int64_t rounded(const IValue& v, double (*how)(double)) {
  return is_float(v) ? static_cast<std::int64_t>(how(v.toDouble())) : as_int(v);
}

std::size_t arity(SymbolicOp op) {
  switch (op) {
    case SymbolicOp::kNeg:
    case SymbolicOp::kAbs:
    case SymbolicOp::kNot:
    case SymbolicOp::kToInt:
    case SymbolicOp::kToFloat:
    case SymbolicOp::kTrunc:
    case SymbolicOp::kFloor:
    case SymbolicOp::kCeil:
    case SymbolicOp::kRound:
    case SymbolicOp::kSqrt: return 1;
    case SymbolicOp::kIfThenElse: return 3;
    case SymbolicOp::kSum: return 0;
    default: return 2;
  }
}

}  // namespace

std::optional<SymbolicOp> symbolic_op_from(const std::string& target) {
  static const std::map<std::string, SymbolicOp> kOps = {
      {"add", SymbolicOp::kAdd},         {"sub", SymbolicOp::kSub},
      {"mul", SymbolicOp::kMul},         {"floordiv", SymbolicOp::kFloorDiv},
      {"truediv", SymbolicOp::kTrueDiv}, {"mod", SymbolicOp::kMod},
      {"pow", SymbolicOp::kPow},         {"neg", SymbolicOp::kNeg},
      {"abs", SymbolicOp::kAbs},         {"eq", SymbolicOp::kEq},
      {"ne", SymbolicOp::kNe},           {"lt", SymbolicOp::kLt},
      {"le", SymbolicOp::kLe},           {"gt", SymbolicOp::kGt},
      {"ge", SymbolicOp::kGe},           {"and_", SymbolicOp::kAnd},
      {"or_", SymbolicOp::kOr},          {"not_", SymbolicOp::kNot},
      {"not", SymbolicOp::kNot},         {"min", SymbolicOp::kMin},
      {"max", SymbolicOp::kMax},         {"sum", SymbolicOp::kSum},
      {"ite", SymbolicOp::kIfThenElse},  {"int", SymbolicOp::kToInt},
      {"float", SymbolicOp::kToFloat},   {"trunc", SymbolicOp::kTrunc},
      {"floor", SymbolicOp::kFloor},     {"ceil", SymbolicOp::kCeil},
      {"round", SymbolicOp::kRound},     {"sqrt", SymbolicOp::kSqrt},
  };
  const std::size_t dot = target.find('.');
  if (dot == std::string::npos) return std::nullopt;
  const std::string module = target.substr(0, dot);
  std::string name = target.substr(dot + 1);
  if (module != "_operator" && module != "operator" && module != "math" && module != "builtins" && module != "torch")
    return std::nullopt;
  if (module == "torch") {  // torch.sym_max, torch._sym_sqrt; anything else under torch. is an op
    if (name.starts_with("_")) name = name.substr(1);
    if (!name.starts_with("sym_")) return std::nullopt;
    name = name.substr(4);
  }
  const auto found = kOps.find(name);
  if (found == kOps.end()) return std::nullopt;
  return found->second;
}

IValue evaluate(SymbolicOp op, std::span<const IValue> v) {
  if (v.size() < arity(op)) throw std::domain_error("too few arguments for a symbolic operation");
  switch (op) {
    case SymbolicOp::kAdd: return arithmetic(v[0], v[1], std::plus<std::int64_t>(), std::plus<double>());
    case SymbolicOp::kSub: return arithmetic(v[0], v[1], std::minus<std::int64_t>(), std::minus<double>());
    case SymbolicOp::kMul: return arithmetic(v[0], v[1], std::multiplies<std::int64_t>(), std::multiplies<double>());
    case SymbolicOp::kFloorDiv:
      return arithmetic(v[0], v[1], floor_div, [](double a, double b) { return std::floor(a / b); });
    case SymbolicOp::kTrueDiv:
      if (as_double(v[1]) == 0.0) throw std::domain_error("division by zero");
      return as_double(v[0]) / as_double(v[1]);
    case SymbolicOp::kMod:
      return arithmetic(
          v[0], v[1], [](std::int64_t a, std::int64_t b) { return a - b * floor_div(a, b); },
          [](double a, double b) { return a - b * std::floor(a / b); });
    case SymbolicOp::kPow:
      if (!is_float(v[0]) && !is_float(v[1]) && as_int(v[1]) >= 0) return int_pow(as_int(v[0]), as_int(v[1]));
      return std::pow(as_double(v[0]), as_double(v[1]));
    case SymbolicOp::kNeg: return is_float(v[0]) ? IValue(-v[0].toDouble()) : IValue(-as_int(v[0]));
    case SymbolicOp::kAbs: return is_float(v[0]) ? IValue(std::fabs(v[0].toDouble())) : IValue(std::abs(as_int(v[0])));
    case SymbolicOp::kEq: return compare(v[0], v[1], [](auto a, auto b) { return a == b; });
    case SymbolicOp::kNe: return compare(v[0], v[1], [](auto a, auto b) { return a != b; });
    case SymbolicOp::kLt: return compare(v[0], v[1], [](auto a, auto b) { return a < b; });
    case SymbolicOp::kLe: return compare(v[0], v[1], [](auto a, auto b) { return a <= b; });
    case SymbolicOp::kGt: return compare(v[0], v[1], [](auto a, auto b) { return a > b; });
    case SymbolicOp::kGe: return compare(v[0], v[1], [](auto a, auto b) { return a >= b; });
    case SymbolicOp::kAnd: return as_bool(v[0]) && as_bool(v[1]);
    case SymbolicOp::kOr: return as_bool(v[0]) || as_bool(v[1]);
    case SymbolicOp::kNot: return !as_bool(v[0]);
    case SymbolicOp::kMin: return as_double(v[0]) <= as_double(v[1]) ? v[0] : v[1];
    case SymbolicOp::kMax: return as_double(v[0]) >= as_double(v[1]) ? v[0] : v[1];
    case SymbolicOp::kSum: {
      IValue sum(std::int64_t{0});
      for (const IValue& term : v) sum = arithmetic(sum, term, std::plus<std::int64_t>(), std::plus<double>());
      return sum;
    }
    case SymbolicOp::kIfThenElse: return as_bool(v[0]) ? v[1] : v[2];
    case SymbolicOp::kToInt:
    case SymbolicOp::kTrunc: return rounded(v[0], std::trunc);
    case SymbolicOp::kToFloat: return as_double(v[0]);
    case SymbolicOp::kFloor: return rounded(v[0], std::floor);
    case SymbolicOp::kCeil: return rounded(v[0], std::ceil);
    case SymbolicOp::kRound: return rounded(v[0], std::nearbyint);
    case SymbolicOp::kSqrt: return std::sqrt(as_double(v[0]));
  }
  return IValue();
}

}  // namespace hesspect
