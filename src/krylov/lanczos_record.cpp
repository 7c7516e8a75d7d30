// LanczosRecord as bytes: a magic with the version, eight counts, two doubles, then α, β, ‖A q‖, the blocks and the
// thick restarts. Doubles bit by bit, everything little-endian.
#include "lanczos_record.h"

#include <bit>
#include <cstring>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

static_assert(std::endian::native == std::endian::little, "records are read and written as they lie in memory");

constexpr char kMagic[8] = {'L', 'A', 'N', 'C', 'Z', 'O', 'S', '2'};

template <class T>
void put(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put(std::string& bytes, const std::vector<double>& values) {
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double));
}

class Reader {
 public:
  explicit Reader(const std::string& bytes) : bytes_(bytes) {}
  std::size_t left() const { return bytes_.size() - at_; }
  void raw(void* to, std::size_t size) {
    if (size > left())
      throw InputError("a Lanczos record ends early, after " + std::to_string(bytes_.size()) + " bytes");
    std::memcpy(to, bytes_.data() + at_, size);
    at_ += size;
  }
  template <class T>
  T value() {
    T result;
    raw(&result, sizeof result);
    return result;
  }
  /// How many things of `size` bytes follow.
  std::size_t count(std::size_t size) {
    const auto number = value<std::int64_t>();
    if (number < 0 || static_cast<std::size_t>(number) > bytes_.size() / size)
      throw InputError("a Lanczos record of " + std::to_string(bytes_.size()) + " bytes can't hold " +
                       std::to_string(number) + " entries");
    return static_cast<std::size_t>(number);
  }
  std::vector<double> doubles(std::size_t number) {
    std::vector<double> values(number);
    if (number > 0) raw(values.data(), number * sizeof(double));
    return values;
  }

 private:
  const std::string& bytes_;
  std::size_t at_ = 0;
};

std::string flaw_of_blocks(const LanczosRecord& record) {
  const auto steps = static_cast<std::int64_t>(record.alpha.size());
  if (record.blocks.empty()) return "it has no block";
  std::int64_t begin = 0;
  for (std::size_t b = 0; b < record.blocks.size(); ++b) {
    const LanczosRecord::Block& block = record.blocks[b];
    if (block.begin != begin || block.end < begin || (block.closed && block.end == begin))
      return "its blocks don't follow each other";
    begin = block.end;
  }
  if (begin != steps) return "its blocks have " + std::to_string(begin) + " steps, not " + std::to_string(steps);
  if (!record.full && record.blocks.size() > 1) return "it has restarts without re-orthogonalisation";
  return "";
}

/// Rows of T as it stands, and the number of the first one.
struct Numbered {
  std::int64_t rows = 0, first_row = 0;
};

/// Each block but the last ends by a breakdown or by the next thick restart.
std::string flaw_of_thick_restarts(const LanczosRecord& record, Numbered& now) {
  const std::string flaw = "its thick restarts don't fit its blocks";
  std::size_t taken = 0;
  for (std::size_t b = 0; b < record.blocks.size(); ++b) {
    const LanczosRecord::Block& block = record.blocks[b];
    now.rows += block.end - block.begin;
    if (block.closed || b + 1 == record.blocks.size()) continue;
    if (taken == record.thick_restarts.size()) return flaw;
    const LanczosRecord::ThickRestart& thick = record.thick_restarts[taken++];
    const auto kept = static_cast<std::int64_t>(thick.theta.size());
    if (thick.step != block.end || thick.coupling.size() != thick.theta.size() || kept >= now.rows) return flaw;
    now = {kept, now.first_row + now.rows + 1};
  }
  return taken == record.thick_restarts.size() ? "" : flaw;
}

}  // namespace

std::string flaw_of(const LanczosRecord& record) {
  if (record.n < 1) return "it is of " + std::to_string(record.n) + " parameters";
  if (record.beta.size() != record.alpha.size() || record.product_norm.size() != record.alpha.size())
    return "its coefficients differ in number";
  const std::string flaw = flaw_of_blocks(record);
  if (!flaw.empty()) return flaw;

  Numbered now;
  if (const std::string thick = flaw_of_thick_restarts(record, now); !thick.empty()) return thick;
  const std::int64_t vectors = now.rows + (record.blocks.back().closed ? 0 : 1);
  const bool stored = record.full ? record.rows == vectors : record.rows == 1 || record.rows == 2;
  if (!stored || record.first_row != now.first_row + vectors - record.rows || record.first_row < 0)
    return "it stores " + std::to_string(record.rows) + " vectors of " + std::to_string(vectors) + ", from number " +
           std::to_string(record.first_row);
  if (record.running < 0 || record.running > 2) return "it has " + std::to_string(record.running) + " running vectors";
  return "";
}

std::string to_bytes(const LanczosRecord& record) {
  std::string bytes(kMagic, sizeof kMagic);
  for (const std::int64_t value :
       {record.n, std::int64_t{record.full}, record.first_row, record.rows, record.running,
        static_cast<std::int64_t>(record.alpha.size()), static_cast<std::int64_t>(record.blocks.size()),
        static_cast<std::int64_t>(record.thick_restarts.size())})
    put(bytes, value);
  put(bytes, record.breakdown_tolerance);
  put(bytes, record.start_norm_sq);
  put(bytes, record.alpha);
  put(bytes, record.beta);
  put(bytes, record.product_norm);
  for (const LanczosRecord::Block& block : record.blocks) {
    put(bytes, block.begin);
    put(bytes, block.end);
    put(bytes, std::int64_t{block.closed});
    put(bytes, block.residual_norm);
  }
  for (const LanczosRecord::ThickRestart& thick : record.thick_restarts) {
    put(bytes, thick.step);
    put(bytes, static_cast<std::int64_t>(thick.theta.size()));
    put(bytes, thick.theta);
    put(bytes, thick.coupling);
  }
  return bytes;
}

LanczosRecord lanczos_record_from(const std::string& bytes) {
  Reader reader(bytes);
  char magic[sizeof kMagic];
  reader.raw(magic, sizeof magic);
  if (std::memcmp(magic, kMagic, sizeof kMagic) != 0)
    throw InputError("these bytes are no Lanczos record, or one of another version");
  LanczosRecord record;
  record.n = reader.value<std::int64_t>();
  record.full = reader.value<std::int64_t>() != 0;
  record.first_row = reader.value<std::int64_t>();
  record.rows = reader.value<std::int64_t>();
  record.running = reader.value<std::int64_t>();
  const std::size_t steps = reader.count(3 * sizeof(double)), blocks = reader.count(4 * sizeof(double)),
                    thick_restarts = reader.count(2 * sizeof(double));
  record.breakdown_tolerance = reader.value<double>();
  record.start_norm_sq = reader.value<double>();
  record.alpha = reader.doubles(steps);
  record.beta = reader.doubles(steps);
  record.product_norm = reader.doubles(steps);
  for (std::size_t b = 0; b < blocks; ++b) {
    LanczosRecord::Block block;
    block.begin = reader.value<std::int64_t>();
    block.end = reader.value<std::int64_t>();
    block.closed = reader.value<std::int64_t>() != 0;
    block.residual_norm = reader.value<double>();
    record.blocks.push_back(block);
  }
  for (std::size_t t = 0; t < thick_restarts; ++t) {
    LanczosRecord::ThickRestart thick;
    thick.step = reader.value<std::int64_t>();
    const std::size_t kept = reader.count(2 * sizeof(double));
    thick.theta = reader.doubles(kept);
    thick.coupling = reader.doubles(kept);
    record.thick_restarts.push_back(std::move(thick));
  }
  if (reader.left() > 0)
    throw InputError("a Lanczos record is followed by " + std::to_string(reader.left()) + " bytes that are none of it");
  if (const std::string flaw = flaw_of(record); !flaw.empty()) throw InputError("a Lanczos record is damaged: " + flaw);
  return record;
}

}  // namespace hesspect
