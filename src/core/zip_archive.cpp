#include "hesspect/core/zip_archive.h"

#include <cstdint>
#include <optional>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

// Structures and signatures: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3.

namespace hesspect {
namespace {

constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::uint32_t kCentralSignature = 0x02014b50;
constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::uint32_t kEnd64Signature = 0x06064b50;
constexpr std::uint32_t kLocator64Signature = 0x07064b50;
constexpr std::uint64_t kLocalBytes = 30;
constexpr std::uint64_t kCentralBytes = 46;
constexpr std::uint64_t kEndBytes = 22;
constexpr std::uint64_t kEnd64Bytes = 56;
constexpr std::uint64_t kLocator64Bytes = 20;
constexpr std::uint64_t kMaxComment = 0xffff;
constexpr std::uint64_t kIn64 = 0xffffffff;  // "the value stands in the 64-bit extension"
constexpr std::uint16_t kExtra64 = 1;

/// Little-endian numbers out of the file, each read checked.
class Bytes {
 public:
  Bytes(const std::filesystem::path& path, std::span<const std::byte> bytes) : path_(path), bytes_(bytes) {}

  [[noreturn]] void refuse(const std::string& why) const {
    throw InputError(quote(path_.string()) + " is not a sound zip archive: " + why);
  }
  std::uint64_t size() const { return bytes_.size(); }
  bool holds(std::uint64_t at, std::uint64_t count) const { return at <= size() && count <= size() - at; }

  std::span<const std::byte> view(std::uint64_t at, std::uint64_t count, const std::string& what) const {
    if (!holds(at, count)) {
      refuse(what + " would take bytes " + std::to_string(at) + " and the " + std::to_string(count) +
             " after it, but the file has " + std::to_string(size()) + " (truncated?)");
    }
    return bytes_.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
  }
  std::uint64_t number(std::uint64_t at, std::uint64_t width) const {
    std::uint64_t value = 0;
    const auto from = view(at, width, "a number");
    for (std::size_t i = 0; i < width; ++i) value |= std::to_integer<std::uint64_t>(from[i]) << (8 * i);
    return value;
  }
  std::uint16_t u16(std::uint64_t at) const { return static_cast<std::uint16_t>(number(at, 2)); }
  std::uint32_t u32(std::uint64_t at) const { return static_cast<std::uint32_t>(number(at, 4)); }
  std::uint64_t u64(std::uint64_t at) const { return number(at, 8); }

 private:
  const std::filesystem::path& path_;
  std::span<const std::byte> bytes_;
};

struct Directory {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
};

/// The end record stands last, but for a comment of up to 64 KiB.
std::optional<std::uint64_t> find_end_record(const Bytes& file) {
  if (file.size() < kEndBytes) return std::nullopt;
  const std::uint64_t last = file.size() - kEndBytes;
  const std::uint64_t first = last > kMaxComment ? last - kMaxComment : 0;
  for (std::uint64_t at = last + 1; at-- > first;) {
    if (file.u32(at) == kEndSignature && at + kEndBytes + file.u16(at + 20) <= file.size()) return at;
  }
  return std::nullopt;
}

Directory read_directory_place(const Bytes& file) {
  const auto end = find_end_record(file);
  if (!end) file.refuse("it has no end record (truncated, or another kind of file)");
  Directory directory{file.u32(*end + 16), file.u32(*end + 12), file.u16(*end + 10)};
  const bool has64 = *end >= kLocator64Bytes && file.u32(*end - kLocator64Bytes) == kLocator64Signature;
  if (has64) {
    const std::uint64_t at = file.u64(*end - kLocator64Bytes + 8);
    file.view(at, kEnd64Bytes, "the 64-bit end record");
    if (file.u32(at) != kEnd64Signature) file.refuse("its 64-bit end record is not where it should be");
    directory = {file.u64(at + 48), file.u64(at + 40), file.u64(at + 32)};
  }
  file.view(directory.offset, directory.bytes, "the directory");
  if (directory.count > directory.bytes / kCentralBytes) {
    file.refuse("its directory of " + std::to_string(directory.bytes) + " bytes cannot hold " +
                std::to_string(directory.count) + " entries");
  }
  return directory;
}

/// Sizes and the offset that did not fit 32 bits stand in the extra field, in this order, those that are needed only.
void read_extra64(const Bytes& file, std::uint64_t at, std::uint64_t end, std::uint64_t& plain, std::uint64_t& packed,
                  std::uint64_t& offset) {
  while (end - at >= 4) {
    const std::uint16_t id = file.u16(at);
    const std::uint64_t field_end = at + 4 + file.u16(at + 2);
    if (field_end > end) file.refuse("an extra field runs over its entry's end");
    if (id == kExtra64) {
      at += 4;
      for (std::uint64_t* value : {&plain, &packed, &offset}) {
        if (*value != kIn64) continue;
        if (field_end - at < 8) file.refuse("a 64-bit extra field is too short");
        *value = file.u64(at);
        at += 8;
      }
      return;
    }
    at = field_end;
  }
}

/// Reads the directory entry at `at` and moves `at` behind it.
ZipEntry read_entry(const Bytes& file, std::uint64_t& at, std::uint64_t directory_end) {
  if (directory_end - at < kCentralBytes || file.u32(at) != kCentralSignature) file.refuse("its directory is broken");
  const std::uint16_t flags = file.u16(at + 8);
  const std::uint16_t method = file.u16(at + 10);
  std::uint64_t packed = file.u32(at + 20);
  std::uint64_t plain = file.u32(at + 24);
  std::uint64_t offset = file.u32(at + 42);
  const std::uint64_t name_at = at + kCentralBytes;
  const std::uint64_t extra_at = name_at + file.u16(at + 28);
  const std::uint64_t extra_end = extra_at + file.u16(at + 30);
  const std::uint64_t next = extra_end + file.u16(at + 32);
  if (next > directory_end) file.refuse("a directory entry runs over the directory's end");

  const auto name_bytes = file.view(name_at, extra_at - name_at, "a name");
  ZipEntry entry{std::string(reinterpret_cast<const char*>(name_bytes.data()), name_bytes.size()), {}};
  const std::string what = "entry " + quote(entry.name);
  read_extra64(file, extra_at, extra_end, plain, packed, offset);
  if ((flags & 1) != 0) file.refuse(what + " is encrypted");
  if (method != 0) file.refuse(what + " is compressed; PyTorch stores its entries uncompressed");
  if (packed != plain) file.refuse(what + " has two different sizes");

  // The local header has a name and an extra field (PyTorch's padding) of its own length.
  file.view(offset, kLocalBytes, what + "'s header");
  if (file.u32(offset) != kLocalSignature) file.refuse(what + " has no header at byte " + std::to_string(offset));
  const std::uint64_t data_at = offset + kLocalBytes + file.u16(offset + 26) + file.u16(offset + 28);
  entry.data = file.view(data_at, plain, what);
  at = next;
  return entry;
}

}  // namespace

ZipArchive::ZipArchive(const std::filesystem::path& path) : path_(path), file_(path) { read_directory(file_->bytes()); }

ZipArchive::ZipArchive(const std::filesystem::path& path, std::span<const std::byte> part) : path_(path) {
  read_directory(part);
}

void ZipArchive::read_directory(std::span<const std::byte> bytes) {
  const Bytes file(path_, bytes);
  const Directory directory = read_directory_place(file);
  entries_.reserve(static_cast<std::size_t>(directory.count));
  std::uint64_t at = directory.offset;
  for (std::uint64_t i = 0; i < directory.count; ++i) {
    entries_.push_back(read_entry(file, at, directory.offset + directory.bytes));
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const std::string& name = entries_[i].name;
    if (!by_name_.emplace(name, i).second) file.refuse("it holds the name " + quote(name) + " twice");
  }
  if (!entries_.empty()) {
    const std::string& name = entries_.front().name;
    const std::size_t slash = name.find('/');
    if (slash != std::string::npos) root_ = name.substr(0, slash);
  }
}

const ZipEntry* ZipArchive::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

}  // namespace hesspect
