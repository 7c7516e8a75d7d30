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
  std::string bytes(kMagic, sizeof kMagic);
  for (const std::int64_t value :
       {record.t.n, std::int64_t{record.full}, record.first_row, record.rows, record.running, record.t.steps(),
        static_cast<std::int64_t>(record.t.blocks.size()), static_cast<std::int64_t>(record.t.thick_restarts.size())})
    put(bytes, value);
  put(bytes, record.breakdown_tolerance);
  put(bytes, record.t.start_norm_sq);
  put(bytes, record.t.alpha);
  put(bytes, record.t.beta);
  put(bytes, record.t.product_norm);
  for (const Tridiagonal::Block& block : record.t.blocks) {
    put(bytes, block.begin);
    put(bytes, block.end);
    put(bytes, std::int64_t{block.closed});
    put(bytes, block.residual_norm);
  }
  for (const Tridiagonal::ThickRestart& thick : record.t.thick_restarts) {
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
  Tridiagonal& t = record.t;
  t.n = reader.value<std::int64_t>();
  record.full = reader.value<std::int64_t>() != 0;
  record.first_row = reader.value<std::int64_t>();
  record.rows = reader.value<std::int64_t>();
  record.running = reader.value<std::int64_t>();
  const std::size_t steps = reader.count(3 * sizeof(double)), blocks = reader.count(4 * sizeof(double)),
                    thick_restarts = reader.count(2 * sizeof(double));
  record.breakdown_tolerance = reader.value<double>();
  t.start_norm_sq = reader.value<double>();
  t.alpha = reader.doubles(steps);
  t.beta = reader.doubles(steps);
  t.product_norm = reader.doubles(steps);
  t.blocks.resize(blocks);
  for (Tridiagonal::Block& block : t.blocks) {
    block.begin = reader.value<std::int64_t>();
    block.end = reader.value<std::int64_t>();
    block.closed = reader.value<std::int64_t>() != 0;
    block.residual_norm = reader.value<double>();
  }
  t.thick_restarts.resize(thick_restarts);
  for (Tridiagonal::ThickRestart& thick : t.thick_restarts) {
    thick.step = reader.value<std::int64_t>();
    const std::size_t kept = reader.count(2 * sizeof(double));
    thick.theta = reader.doubles(kept);
    thick.coupling = reader.doubles(kept);
  }
  if (reader.left() > 0)
    throw InputError("a Lanczos record is followed by " + std::to_string(reader.left()) + " bytes that are none of it");
  if (const std::string flaw = flaw_of(record); !flaw.empty()) throw InputError("a Lanczos record is damaged: " + flaw);
  return record;
}

}  // namespace hesspect
