#include "json_mutator.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "hesspect/core/json_nesting.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace hesspect::fuzz {
namespace {

using nlohmann::json;

constexpr std::size_t kMostNested = 2000;  // levels that one change may add

/// A node and where it hangs; no parent at the root.
struct Place {
  json* node = nullptr;
  json* parent = nullptr;
};

class Mutator {
 public:
  Mutator(json& root, unsigned seed) : root_(root), random_(seed) {}

  void change() {
    collect();
    const Place place = pick();
    switch (below(9)) {
      case 0: *place.node = extreme(); break;
      case 1: *place.node = json(*pick().node); break;
      case 2: remove(place); break;
      case 3: insert(*place.node); break;
      case 4: change_value(*place.node); break;
      case 5: change_value(*place.node); break;
      case 6: exchange(*place.node, *pick().node); break;
      case 7: rename(*place.node); break;
      default: nest(*place.node); break;
    }
  }

 private:
  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void collect() {
    places_.assign(1, {&root_, nullptr});
    for (std::size_t i = 0; i < places_.size(); ++i) {
      json* node = places_[i].node;
      if (node->is_structured())
        for (json& child : *node) places_.push_back({&child, node});
    }
  }
  Place pick() { return places_[below(places_.size())]; }

  json extreme() {
    static const std::vector<json> kExtremes = {nullptr,
                                                true,
                                                false,
                                                0,
                                                1,
                                                -1,
                                                2,
                                                63,
                                                64,
                                                255,
                                                1 << 30,
                                                -(1LL << 31),
                                                1LL << 32,
                                                1LL << 53,
                                                1LL << 62,
                                                std::numeric_limits<std::int64_t>::max(),
                                                std::numeric_limits<std::int64_t>::min(),
                                                std::numeric_limits<std::uint64_t>::max(),
                                                0.5,
                                                -0.0,
                                                1e300,
                                                -1e300,
                                                5e-324,
                                                1e19,
                                                "",
                                                "Infinity",
                                                "NaN",
                                                "a.b",
                                                json::array(),
                                                json::object(),
                                                json::array({0}),
                                                json::object({{"as_int", -1}})};
    return kExtremes[below(kExtremes.size())];
  }

  /// The places below are stale afterwards; change() collects them anew.
  void remove(const Place& place) {
    if (place.parent == nullptr) return;
    for (auto it = place.parent->begin(); it != place.parent->end(); ++it)
      if (&*it == place.node) {
        place.parent->erase(it);
        return;
      }
  }

  void insert(json& into) {
    const json copy = below(3) == 0 ? extreme() : *pick().node;
    if (into.is_array()) {
      const std::size_t times = below(8) == 0 ? 1 + below(64) : 1;
      into.insert(into.begin() + static_cast<std::ptrdiff_t>(below(into.size() + 1)), times, copy);
    } else if (into.is_object()) {
      into[some_key()] = copy;
    }
  }

  std::string some_key() {
    for (int i = 0; i < 8; ++i) {
      const json& node = *pick().node;
      if (!node.is_object() || node.empty()) continue;
      auto it = node.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(below(node.size())));
      return it.key();
    }
    return "key";
  }

  void change_value(json& node) {
    if (node.is_number_integer()) {
      std::uint64_t bits = node.get<std::uint64_t>();
      switch (below(5)) {
        case 0: bits += 1; break;
        case 1: bits -= 1; break;
        case 2: bits = ~bits + 1; break;
        case 3: bits ^= std::uint64_t{1} << below(64); break;
        default: bits *= 2; break;
      }
      node = static_cast<std::int64_t>(bits);
    } else if (node.is_number_float()) {
      const double value = node.get<double>();
      node = below(2) == 0 ? -value : value * (below(2) == 0 ? 1e10 : 1e-10);
    } else if (node.is_boolean()) {
      node = !node.get<bool>();
    } else if (node.is_string()) {
      const json& other = *pick().node;
      if (below(2) == 0 && other.is_string())
        node = json(other);
      else
        node = mutate_bytes(node.get<std::string>(), node.get_ref<const std::string&>().size() + 16);
    } else {
      node = extreme();
    }
  }

  void exchange(json& a, json& b) {
    json left = a, right = b;  // one may hold the other
    a = std::move(right);
    collect();
    if (std::any_of(places_.begin(), places_.end(), [&](const Place& place) { return place.node == &b; }))
      b = std::move(left);
  }

  void rename(json& node) {
    if (!node.is_object() || node.empty()) return;
    const std::string key = some_key();
    auto it = node.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(below(node.size())));
    json value = std::move(*it);
    node.erase(it);
    node[key] = std::move(value);
  }

  void nest(json& node) {
    const std::size_t levels = below(16) == 0 ? 1 + below(kMostNested) : 1;
    for (std::size_t i = 0; i < levels; ++i) node = json::array({std::move(node)});
  }

  json& root_;
  std::mt19937 random_;
  std::vector<Place> places_;
};

}  // namespace

std::string mutate_bytes(std::string bytes, std::size_t max_size) {
  const std::size_t size = bytes.size();
  bytes.resize(std::max(size, max_size));
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), size, bytes.size()));
  return bytes;
}

std::string mutate_json(const std::string& text, std::size_t max_size, unsigned seed) {
  const bool as_json = seed % 16 != 0 && !json_nests_deeper(text, kMostNested);
  json root = as_json ? json::parse(text, nullptr, false) : json(json::value_t::discarded);
  if (root.is_discarded()) return mutate_bytes(text, max_size);
  Mutator mutator(root, seed);
  for (unsigned i = 0; i <= seed / 16 % 3; ++i) mutator.change();
  std::string changed = root.dump(-1, ' ', false, json::error_handler_t::replace);
  return changed.size() <= max_size ? changed : mutate_bytes(text, max_size);
}

std::size_t mutate_json_input(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  const std::string changed = mutate_json({reinterpret_cast<const char*>(data), size}, max_size, seed);
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}

}  // namespace hesspect::fuzz
