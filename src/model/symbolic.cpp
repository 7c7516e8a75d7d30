#include "symbolic.h"

#include <cmath>
#include <functional>
#include <map>
#include <stdexcept>

namespace hesspect {
namespace {

using c10::IValue;

double as_double(const IValue& v) {
  if (v.isDouble()) return v.toDouble();
  if (v.isBool()) return v.toBool() ? 1.0 : 0.0;
  return static_cast<double>(v.toInt());
}

std::int64_t as_int(const IValue& v) {
  if (v.isBool()) return v.toBool() ? 1 : 0;
  return v.toInt();
}

bool as_bool(const IValue& v) { return as_double(v) != 0.0; }

// Python's ints have no bound: what leaves 64 bits is an error here, never a number that has wrapped around.

[[noreturn]] void too_large() {
  throw std::domain_error("an integer beyond 64 bits, which hesspect does not compute with");
}

std::int64_t add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) too_large();
  return sum;
}

std::int64_t subtract(std::int64_t a, std::int64_t b) {
  std::int64_t difference = 0;
  if (__builtin_sub_overflow(a, b, &difference)) too_large();
  return difference;
}

std::int64_t multiply(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) too_large();
  return product;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  if (b == 0) throw std::domain_error("integer division by zero");
  if (b == -1) return subtract(0, a);
  const std::int64_t q = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? q - 1 : q;
}

std::int64_t modulo(std::int64_t a, std::int64_t b) {
  if (b == 0) throw std::domain_error("integer modulo by zero");
  if (b == -1) return 0;
  const std::int64_t r = a % b;
  return (r != 0 && (r < 0) != (b < 0)) ? r + b : r;
}

/// By squaring: a square that is still needed and leaves 64 bits is a factor of the result.
std::int64_t int_pow(std::int64_t base, std::int64_t exponent) {
  for (std::int64_t result = 1;; base = multiply(base, base)) {
    if (exponent % 2 == 1) result = multiply(result, base);
    exponent /= 2;
    if (exponent == 0) return result;
  }
}

/// a = q b + r with r of b's sign; as CPython's float_divmod.
struct FloatDivision {
  double quotient, remainder;
};

FloatDivision divide(double a, double b) {
  if (b == 0.0) throw std::domain_error("float division by zero");
  double r = std::fmod(a, b);
  double q = (a - r) / b;
  if (r != 0.0 && (b < 0) != (r < 0)) {
    r += b;
    q -= 1.0;
  } else if (r == 0.0) {
    r = std::copysign(0.0, b);
  }
  if (q == 0.0) return {std::copysign(0.0, a / b), r};
  const double whole = std::floor(q);
  return {q - whole > 0.5 ? whole + 1.0 : whole, r};
}

/// Python raises an error, or leaves the real numbers, where C gives an infinity or NaN.
double float_pow(double base, double exponent) {
  if (base == 0.0 && exponent < 0) throw std::domain_error("zero to a negative power");
  const double power = std::pow(base, exponent);
  if (std::isfinite(base) && std::isfinite(exponent) && !std::isfinite(power))
    throw std::domain_error("a power that is no real number, or too large for one");
  return power;
}

std::int64_t int_from(double value) {
  if (!(value >= -0x1p63 && value < 0x1p63))
    throw std::domain_error("the integer of " + std::to_string(value) + ", which has none of 64 bits");
  return static_cast<std::int64_t>(value);
}

/// Bitwise on ints, as Python's & and |; of two bools a bool.
template <class Op>
IValue bitwise(const IValue& a, const IValue& b, Op op) {
  const std::int64_t bits = op(as_int(a), as_int(b));
  return a.isBool() && b.isBool() ? IValue(bits != 0) : IValue(bits);
}

template <class IntOp, class FloatOp>
IValue arithmetic(const IValue& a, const IValue& b, IntOp int_op, FloatOp float_op) {
  if (a.isDouble() || b.isDouble()) return float_op(as_double(a), as_double(b));
  return int_op(as_int(a), as_int(b));
}

template <class Compare>
IValue compare(const IValue& a, const IValue& b, Compare op) {
  return arithmetic(a, b, op, op);
}

IValue rounded(const IValue& v, double (*how)(double)) {
  return v.isDouble() ? int_from(how(v.toDouble())) : as_int(v);
}

bool at_most(const IValue& a, const IValue& b) {
  return compare(a, b, [](auto x, auto y) { return x <= y; }).toBool();
}

IValue true_div(const IValue& a, const IValue& b) {
  if (as_double(b) == 0.0) throw std::domain_error("division by zero");
  return as_double(a) / as_double(b);
}

IValue power(const IValue& base, const IValue& exponent) {
  if (!base.isDouble() && !exponent.isDouble() && as_int(exponent) >= 0) return int_pow(as_int(base), as_int(exponent));
  return float_pow(as_double(base), as_double(exponent));
}

IValue negative(const IValue& v) { return v.isDouble() ? IValue(-v.toDouble()) : IValue(subtract(0, as_int(v))); }

IValue absolute(const IValue& v) {
  if (v.isDouble()) return std::fabs(v.toDouble());
  return as_int(v) < 0 ? subtract(0, as_int(v)) : as_int(v);
}

IValue square_root(const IValue& v) {
  if (as_double(v) < 0) throw std::domain_error("the square root of a negative number");
  return std::sqrt(as_double(v));
}

using Values = std::span<const IValue>;

IValue sum_of(Values v) {
  IValue sum(std::int64_t{0});
  for (const IValue& term : v) sum = arithmetic(sum, term, add, std::plus<double>());
  return sum;
}

/// The operators by their names in Python's `operator`, or after torch's `sym_`.
const std::map<std::string, SymbolicOp> kOps = {
    {"add", {2, [](Values v) { return arithmetic(v[0], v[1], add, std::plus<double>()); }}},
    {"sub", {2, [](Values v) { return arithmetic(v[0], v[1], subtract, std::minus<double>()); }}},
    {"mul", {2, [](Values v) { return arithmetic(v[0], v[1], multiply, std::multiplies<double>()); }}},
    {"floordiv",
     {2,
      [](Values v) {
        return arithmetic(v[0], v[1], floor_div, [](double a, double b) { return divide(a, b).quotient; });
      }}},
    {"truediv", {2, [](Values v) { return true_div(v[0], v[1]); }}},
    {"mod",
     {2,
      [](Values v) {
        return arithmetic(v[0], v[1], modulo, [](double a, double b) { return divide(a, b).remainder; });
      }}},
    {"pow", {2, [](Values v) { return power(v[0], v[1]); }}},
    {"neg", {1, [](Values v) { return negative(v[0]); }}},
    {"abs", {1, [](Values v) { return absolute(v[0]); }}},
    {"eq", {2, [](Values v) { return compare(v[0], v[1], [](auto a, auto b) { return a == b; }); }}},
    {"ne", {2, [](Values v) { return compare(v[0], v[1], [](auto a, auto b) { return a != b; }); }}},
    {"lt", {2, [](Values v) { return compare(v[0], v[1], [](auto a, auto b) { return a < b; }); }}},
    {"le", {2, [](Values v) { return compare(v[0], v[1], [](auto a, auto b) { return a <= b; }); }}},
    {"gt", {2, [](Values v) { return compare(v[0], v[1], [](auto a, auto b) { return a > b; }); }}},
    {"ge", {2, [](Values v) { return compare(v[0], v[1], [](auto a, auto b) { return a >= b; }); }}},
    {"and_", {2, [](Values v) { return bitwise(v[0], v[1], std::bit_and<std::int64_t>()); }}},
    {"or_", {2, [](Values v) { return bitwise(v[0], v[1], std::bit_or<std::int64_t>()); }}},
    {"not_", {1, [](Values v) { return IValue(!as_bool(v[0])); }}},
    {"not", {1, [](Values v) { return IValue(!as_bool(v[0])); }}},
    {"min", {2, [](Values v) { return at_most(v[0], v[1]) ? v[0] : v[1]; }}},
    {"max", {2, [](Values v) { return at_most(v[1], v[0]) ? v[0] : v[1]; }}},
    {"sum", {0, sum_of}},
    {"ite", {3, [](Values v) { return as_bool(v[0]) ? v[1] : v[2]; }}},
    {"int", {1, [](Values v) { return rounded(v[0], std::trunc); }}},
    {"float", {1, [](Values v) { return IValue(as_double(v[0])); }}},
    {"trunc", {1, [](Values v) { return rounded(v[0], std::trunc); }}},
    {"floor", {1, [](Values v) { return rounded(v[0], std::floor); }}},
    {"ceil", {1, [](Values v) { return rounded(v[0], std::ceil); }}},
    {"round", {1, [](Values v) { return rounded(v[0], std::nearbyint); }}},
    {"sqrt", {1, [](Values v) { return square_root(v[0]); }}},
};

}  // namespace

std::optional<SymbolicOp> symbolic_op_from(const std::string& target) {
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
  return found == kOps.end() ? std::nullopt : std::optional(found->second);
}

IValue evaluate(const SymbolicOp& op, std::span<const IValue> arguments) {
  if (arguments.size() < op.arity) throw std::domain_error("too few arguments for a symbolic operation");
  return op.run(arguments);
}

}  // namespace hesspect
