#include "hesspect/core/safetensors.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <unordered_set>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

constexpr std::size_t kLengthBytes = 8;
// The reference implementation's own bound on the header.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

struct ParsedTensor {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<std::uint64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;
};

/// Takes the header in as events, so that nesting costs no stack, order is kept and a duplicate name is seen.
/// Any callback that returns false stops the parser; `problem` then says why.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<ParsedTensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string problem;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return unexpected("a number that is not whole"); }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kList) return unexpected("a number");
    list_->push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      metadata[key_] = value;
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return unexpected("text");
    tensors.back().dtype = value;
    return true;
  }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kOutside: place_ = Place::kTop; return true;
      case Place::kTop:
        place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
        if (place_ == Place::kTensor) tensors.push_back({key_, {}, {}, {}});
        keys_here_.clear();
        return true;
      default: return unexpected("an object");
    }
  }

  bool key(string_t& name) override {
    key_ = name;
    if (place_ == Place::kTop) {
      return top_names_.insert(name).second || fail("the name " + quote(name) + " stands twice in the header");
    }
    if (!keys_here_.insert(name).second) return fail("the key " + quote(name) + " stands twice" + where());
    if (place_ == Place::kTensor && name != "dtype" && name != "shape" && name != "data_offsets") {
      return fail("unknown key " + quote(name) + where());
    }
    return true;
  }

  bool end_object() override {
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") return unexpected("a list");
    auto& list = key_ == "shape" ? tensors.back().shape : tensors.back().offsets;
    list_ = &list.emplace();
    place_ = Place::kList;
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail("the header is not valid JSON (at byte " + std::to_string(position) + " of it)");
  }

 private:
  enum class Place { kOutside, kTop, kMetadata, kTensor, kList };

  bool fail(std::string why) {
    problem = std::move(why);
    return false;
  }
  std::string where() const {
    if (place_ == Place::kTensor || place_ == Place::kList) return " in tensor " + quote(tensors.back().name);
    if (place_ == Place::kMetadata) return " in '__metadata__'";
    return place_ == Place::kTop ? " under the name " + quote(key_) : " as the whole header";
  }
  bool unexpected(const char* what) { return fail(std::string("unexpected ") + what + where()); }

  Place place_ = Place::kOutside;
  std::string key_;
  std::vector<std::uint64_t>* list_ = nullptr;
  std::unordered_set<std::string> top_names_;
  std::unordered_set<std::string> keys_here_;
};

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& why) {
  throw InputError(quote(path.string()) + " is not a sound safetensors file: " + why);
}

/// Length of the header, checked against the file and the format's bound.
std::size_t header_bytes(const MappedFile& file) {
  const auto bytes = file.bytes();
  if (bytes.size() < kLengthBytes) {
    refuse(file.path(), "it has " + std::to_string(bytes.size()) + " bytes, fewer than the 8 of the header's length");
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  const std::size_t available = bytes.size() - kLengthBytes;
  if (length > available) {
    refuse(file.path(), "its header would be " + std::to_string(length) + " bytes long, but only " +
                            std::to_string(available) + " bytes follow (truncated?)");
  }
  if (length > kMaxHeaderBytes) {
    refuse(file.path(), "its header would be " + std::to_string(length) + " bytes long, more than the format's " +
                            std::to_string(kMaxHeaderBytes));
  }
  return static_cast<std::size_t>(length);
}

/// The type, and shape times element size against the byte range; the range against the data section.
SafetensorsEntry check_tensor(const std::filesystem::path& path, const ParsedTensor& parsed,
                              std::span<const std::byte> data) {
  const std::string tensor = "tensor " + quote(parsed.name);
  if (!parsed.dtype || !parsed.shape || !parsed.offsets) {
    refuse(path, tensor + " lacks " + (!parsed.dtype ? "'dtype'" : !parsed.shape ? "'shape'" : "'data_offsets'"));
  }
  const auto type = element_from_safetensors(*parsed.dtype);
  if (!type) {
    refuse(path, tensor + " has dtype " + quote(*parsed.dtype) + ", which hesspect does not read");
  }
  if (parsed.offsets->size() != 2) {
    refuse(path, tensor + " has " + std::to_string(parsed.offsets->size()) + " data offsets, expected 2");
  }
  const std::uint64_t begin = (*parsed.offsets)[0];
  const std::uint64_t end = (*parsed.offsets)[1];
  if (begin > end || end > data.size()) {
    refuse(path, tensor + " has data offsets " + std::to_string(begin) + " to " + std::to_string(end) +
                     ", outside the " + std::to_string(data.size()) + " bytes of data");
  }

  SafetensorsEntry entry{parsed.name, *type, {}, data.data() + begin, static_cast<std::size_t>(end - begin)};
  // A zero among the sizes makes the product 0, but the others still may not overflow it.
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t nonzero_product = element_size(*type);
  bool empty = false;
  for (const std::uint64_t size : *parsed.shape) {
    if (size > kMost || (size != 0 && nonzero_product > kMost / size)) {
      refuse(path, tensor + " has a shape whose size overflows (dimension " + std::to_string(size) + ")");
    }
    empty = empty || size == 0;
    nonzero_product *= std::max<std::uint64_t>(1, size);
    entry.shape.push_back(static_cast<std::int64_t>(size));
  }
  const std::uint64_t needed = empty ? 0 : nonzero_product;
  if (needed != entry.bytes) {
    refuse(path, tensor + " of shape " + format_shape(entry.shape) + " and dtype " + to_string(*type) + " needs " +
                     std::to_string(needed) + " bytes, but its data offsets span " + std::to_string(entry.bytes));
  }
  return entry;
}

/// The ranges must tile the data section: sorted, each begins where the one before ends.
void check_tiling(const std::filesystem::path& path, const std::vector<SafetensorsEntry>& entries,
                  std::span<const std::byte> data) {
  std::vector<std::size_t> order(entries.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(entries[a].data, entries[a].bytes) < std::pair(entries[b].data, entries[b].bytes);
  });
  std::size_t reached = 0;
  const SafetensorsEntry* before = nullptr;
  for (const std::size_t index : order) {
    const SafetensorsEntry& entry = entries[index];
    const auto begin = static_cast<std::size_t>(entry.data - data.data());
    if (begin < reached) {
      refuse(path, "tensors " + quote(before->name) + " and " + quote(entry.name) + " overlap (at data byte " +
                       std::to_string(begin) + ")");
    }
    if (begin > reached) {
      refuse(path, "data bytes " + std::to_string(reached) + " to " + std::to_string(begin) + ", before tensor " +
                       quote(entry.name) + ", belong to no tensor");
    }
    reached = begin + entry.bytes;
    before = &entry;
  }
  if (reached != data.size()) {
    refuse(path, "its last " + std::to_string(data.size() - reached) + " data bytes belong to no tensor");
  }
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const std::size_t length = header_bytes(file_);
  const auto header = file_.bytes().subspan(kLengthBytes, length);
  const auto data = file_.bytes().subspan(kLengthBytes + length);

  HeaderReader reader;
  const auto* text = reinterpret_cast<const char*>(header.data());
  if (!nlohmann::json::sax_parse(text, text + header.size(), &reader)) refuse(path, reader.problem);

  metadata_ = std::move(reader.metadata);
  entries_.reserve(reader.tensors.size());
  for (const ParsedTensor& parsed : reader.tensors) {
    entries_.push_back(check_tensor(path, parsed, data));
    by_name_.emplace(parsed.name, entries_.size() - 1);
  }
  check_tiling(path, entries_, data);
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

}  // namespace hesspect
