// A run's state as a checkpoint folder may be given it: fields of every kind.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "hesspect/io/fields.h"

namespace hesspect::test {

struct Apple {
  double weight = 0;
};
struct Pear {};
using Fruit = std::variant<Apple, Pear>;
constexpr std::array<const char*, 2> names_of(const Fruit&) { return {"apple", "pear"}; }
enum class Colour { kRed, kGreen };
inline std::string to_string(Colour colour) { return colour == Colour::kRed ? "red" : "green"; }

struct RunState {
  std::string run_id = "5eed";
  std::string text, opaque;
  std::vector<double> values;
  std::optional<double> maybe;
  std::vector<Fruit> fruit;
  Colour colour = Colour::kGreen;
  int ranks = 1;
  std::int64_t products = 0, starts = 3;
  bool overwrite = false;
};

void fields(auto& v, Is<Apple> auto& apple) { v("weight", apple.weight); }
void fields(auto&, Is<Pear> auto&) {}

void fields(auto& v, Is<RunState> auto& s) {
  static constexpr Colour kColours[] = {Colour::kRed, Colour::kGreen};
  v("run_id", s.run_id, "text", s.text);
  v.bytes("opaque", s.opaque);
  v("values", s.values, "maybe", s.maybe, "fruit", s.fruit);
  v.choice("colour", s.colour, std::span<const Colour>(kColours));
  v("ranks", s.ranks, "products", s.products, "starts", s.starts, "overwrite", s.overwrite);
}

}  // namespace hesspect::test
