#include "hesspect/config/direction.h"

#include <charconv>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

constexpr std::int64_t kMostEigenvectors = 1'000;

bool read_integer(const std::string& text, std::int64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

DirectionName direction_from(const std::string& text) {
  using Kind = DirectionName::Kind;
  const auto colon = text.find(':');
  const std::string kind = text.substr(0, colon), rest = colon == std::string::npos ? "" : text.substr(colon + 1);
  DirectionName name;
  if (kind == "eigenvector" && colon != std::string::npos) {
    if (read_integer(rest, name.number) && name.number != 0 && std::abs(name.number) <= kMostEigenvectors) return name;
    throw UsageError("direction '" + text +
                     "': expected eigenvector:I, I from 1 for the largest eigenvalues or from -1 for the smallest");
  }
  if (kind == "random") {
    name.kind = Kind::kRandom;
    name.number = 0;
    if (colon == std::string::npos || (read_integer(rest, name.number) && name.number >= 0)) return name;
    throw UsageError("direction '" + text + "': expected random:I, I from 0");
  }
  name.kind = Kind::kGradient;
  if (text == "gradient") return name;
  name.kind = Kind::kWeights;
  name.file = rest;
  if (kind == "weights" && !rest.empty()) return name;
  throw UsageError("direction '" + text + "': expected eigenvector:I, random:I, gradient or weights:FILE");
}

std::vector<DirectionName> directions_from(const std::vector<std::string>& texts) {
  if (texts.empty()) return {direction_from("eigenvector:1"), direction_from("eigenvector:2")};
  if (texts.size() > 2)
    throw UsageError("--direction is given " + std::to_string(texts.size()) + " times: a landscape has one or two");
  if (texts.size() == 2 && texts[0] == texts[1])
    throw UsageError("--direction " + texts[0] + " is given twice: a surface needs two directions");
  std::vector<DirectionName> names;
  names.reserve(texts.size());
  for (const std::string& text : texts) names.push_back(direction_from(text));
  return names;
}

}  // namespace hesspect
