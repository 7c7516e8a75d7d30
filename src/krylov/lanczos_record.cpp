// LanczosRecord as bytes: a magic with the version, eight counts, two doubles, then α, β, ‖A q‖, the blocks and the
// thick restarts. Doubles bit by bit, everything little-endian.
#include "hesspect/krylov/lanczos_record.h"

#include <bit>
#include <cstring>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

static_assert(std::endian::native == std::endian::little, "records are read and written as they lie in memory");

constexpr char kMagic[8] = {'L', 'A', 'N', 'C', 'Z', 'O', 'S', '2'};

class Writer {
 public:
  std::string bytes;
  template <class T>
  void value(const T& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void flag(bool value) { this->value(std::int64_t{value}); }
  template <class T>
  void size(const std::vector<T>& list, std::size_t) {
    value(static_cast<std::int64_t>(list.size()));
  }
  void doubles(const std::vector<double>& values, std::size_t number) {
    bytes.append(reinterpret_cast<const char*>(values.data()), number * sizeof(double));
  }
};

class Reader {
 public:
  explicit Reader(const std::string& bytes) : bytes_(bytes) {}
  std::size_t left() const { return bytes_.size() - at_; }
  template <class T>
  void value(T& value) {
    raw(&value, sizeof value);
  }
  void flag(bool& value) {
    std::int64_t number = 0;
    this->value(number);
    value = number != 0;
  }
  /// @param item  bytes that each entry takes, at least
  template <class T>
  void size(std::vector<T>& list, std::size_t item) {
    std::int64_t number = 0;
    value(number);
    if (number < 0 || static_cast<std::size_t>(number) > bytes_.size() / item)
      throw InputError("a Lanczos record of " + std::to_string(bytes_.size()) + " bytes can't hold " +
                       std::to_string(number) + " entries");
    list.resize(static_cast<std::size_t>(number));
  }
  void doubles(std::vector<double>& values, std::size_t number) {
    values.resize(number);
    if (number > 0) raw(values.data(), number * sizeof(double));
  }

 private:
  void raw(void* to, std::size_t size) {
    if (size > left())
      throw InputError("a Lanczos record ends early, after " + std::to_string(bytes_.size()) + " bytes");
    std::memcpy(to, bytes_.data() + at_, size);
    at_ += size;
  }

  const std::string& bytes_;
  std::size_t at_ = 0;
};

/// All that follows the magic, in order: written by a Writer, read by a Reader.
template <class Stream, class Record>
void transfer(Stream& stream, Record& record) {
  auto& t = record.t;
  stream.value(t.n);
  stream.flag(record.full);
  stream.value(record.first_row);
  stream.value(record.rows);
  stream.value(record.running);
  stream.size(t.alpha, 3 * sizeof(double));
  stream.size(t.blocks, 4 * sizeof(double));
  stream.size(t.thick_restarts, 2 * sizeof(double));
  stream.value(record.breakdown_tolerance);
  stream.value(t.start_norm_sq);
  for (auto* values : {&t.alpha, &t.beta, &t.product_norm}) stream.doubles(*values, t.alpha.size());
  for (auto& block : t.blocks) {
    stream.value(block.begin);
    stream.value(block.end);
    stream.flag(block.closed);
    stream.value(block.residual_norm);
  }
  for (auto& thick : t.thick_restarts) {
    stream.value(thick.step);
    stream.size(thick.theta, 2 * sizeof(double));
    for (auto* values : {&thick.theta, &thick.coupling}) stream.doubles(*values, thick.theta.size());
  }
}

std::string flaw_of_blocks(const Tridiagonal& t, bool full) {
  if (t.blocks.empty()) return "it has no block";
  std::int64_t begin = 0;
  for (const Tridiagonal::Block& block : t.blocks) {
    if (block.begin != begin || block.end < begin || (block.closed && block.end == begin))
      return "its blocks don't follow each other";
    begin = block.end;
  }
  if (begin != t.steps())
    return "its blocks have " + std::to_string(begin) + " steps, not " + std::to_string(t.steps());
  if (!full && t.blocks.size() > 1) return "it has restarts without re-orthogonalisation";
  return "";
}

/// Each block but the last ends by a breakdown or by the next thick restart, which keeps fewer rows than there were.
std::string flaw_of_thick_restarts(const Tridiagonal& t) {
  const std::string flaw = "its thick restarts don't fit its blocks";
  std::size_t taken = 0;
  std::int64_t rows = 0;
  for (std::size_t b = 0; b < t.blocks.size(); ++b) {
    rows += t.blocks[b].size();
    if (t.blocks[b].closed || b + 1 == t.blocks.size()) continue;
    if (taken == t.thick_restarts.size()) return flaw;
    const Tridiagonal::ThickRestart& thick = t.thick_restarts[taken++];
    const auto kept = static_cast<std::int64_t>(thick.theta.size());
    if (thick.step != t.blocks[b].end || thick.coupling.size() != thick.theta.size() || kept >= rows) return flaw;
    rows = kept;
  }
  return taken == t.thick_restarts.size() ? "" : flaw;
}

}  // namespace

std::string flaw_of(const LanczosRecord& record) {
  const Tridiagonal& t = record.t;
  if (t.n < 1) return "it is of " + std::to_string(t.n) + " parameters";
  if (t.beta.size() != t.alpha.size() || t.product_norm.size() != t.alpha.size())
    return "its coefficients differ in number";
  if (const std::string flaw = flaw_of_blocks(t, record.full); !flaw.empty()) return flaw;
  if (const std::string flaw = flaw_of_thick_restarts(t); !flaw.empty()) return flaw;

  const std::int64_t vectors = t.rows() + (t.breakdown() ? 0 : 1);
  const bool stored = record.full ? record.rows == vectors : record.rows == 1 || record.rows == 2;
  if (!stored || record.first_row != t.first_row() + vectors - record.rows || record.first_row < 0)
    return "it stores " + std::to_string(record.rows) + " vectors of " + std::to_string(vectors) + ", from number " +
           std::to_string(record.first_row);
  if (record.running < 0 || record.running > 2) return "it has " + std::to_string(record.running) + " running vectors";
  return "";
}

std::string to_bytes(const LanczosRecord& record) {
  Writer writer{std::string(kMagic, sizeof kMagic)};
  transfer(writer, record);
  return std::move(writer.bytes);
}

LanczosRecord lanczos_record_from(const std::string& bytes) {
  Reader reader(bytes);
  char magic[sizeof kMagic];
  reader.value(magic);
  if (std::memcmp(magic, kMagic, sizeof kMagic) != 0)
    throw InputError("these bytes are no Lanczos record, or one of another version");
  LanczosRecord record;
  transfer(reader, record);
  if (reader.left() > 0)
    throw InputError("a Lanczos record is followed by " + std::to_string(reader.left()) + " bytes that are none of it");
  if (const std::string flaw = flaw_of(record); !flaw.empty()) throw InputError("a Lanczos record is damaged: " + flaw);
  return record;
}

}  // namespace hesspect
