#include "hesspect/run/write_vectors.h"

#include <ATen/ATen.h>

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "hesspect/comm/agree.h"

namespace hesspect {
namespace {

/// A vector whole, on the first rank; empty elsewhere. Collective.
at::Tensor gathered(const LinearOperator& op, const at::Tensor& local) {
  Communicator& comm = op.comm();
  at::Tensor full = agreed(comm, [&] { return at::empty({op.shard().padded()}, local.options()); });
  comm.all_gather(local, full);
  return agreed(comm, [&] { return comm.rank() == 0 ? full.narrow(0, 0, op.shard().n).cpu() : at::Tensor(); });
}

/// Calls use(entries) with a tensor's, float or double.
template <class Use>
void with_entries(const at::Tensor& tensor, Use&& use) {
  const auto count = static_cast<std::size_t>(tensor.numel());
  if (tensor.scalar_type() == at::kFloat)
    use(std::span(tensor.const_data_ptr<float>(), count));
  else
    use(std::span(tensor.const_data_ptr<double>(), count));
}

/// Writes a vector that is cut set by set, a set at a time: no rank holds it whole. Collective.
/// @param file  of the first rank; null elsewhere
void write_by_sets(const LinearOperator& op, const at::Tensor& local, VectorsFile* file, std::int64_t i) {
  Communicator& comm = op.comm();
  for (const VectorCut::Set& set : op.shard().cut->sets()) {
    at::Tensor whole = agreed(comm, [&] { return at::empty({comm.size() * set.chunk}, local.options()); });
    comm.all_gather(local.narrow(0, set.local, set.chunk), whole);
    agree(comm, [&] {
      if (file == nullptr) return;
      const at::Tensor here = whole.cpu();
      std::int64_t at = 0;
      for (const VectorCut::Range& range : set.ranges) {
        with_entries(here.narrow(0, at, range.size), [&](auto entries) { file->write_piece(i, range.begin, entries); });
        at += range.size;
      }
    });
  }
}

}  // namespace

void write_vectors(const LinearOperator& op, const std::filesystem::path& path, VectorsInfo info,
                   std::span<const std::optional<std::size_t>> which,
                   const std::function<at::Tensor(std::size_t)>& vectors) {
  Communicator& comm = op.comm();
  std::unique_ptr<VectorsFile> file;
  info.float64 = op.options().dtype() == at::kDouble;
  agree(comm, [&] {
    if (comm.rank() == 0) file = std::make_unique<VectorsFile>(path, info);
  });
  std::int64_t all = 0, units = 0;
  for (const VectorPart& part : info.parts) all += entries_of(part);
  for (std::size_t i = 0; i < which.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    if (!which[i]) {
      const std::optional<std::int64_t> entry = op.shard().numbers->left_out(units++, all);
      agree(comm, [&] {
        if (file) file->write_unit(at, entry.value());
      });
      continue;
    }
    const at::Tensor local = agreed(comm, [&] { return vectors(*which[i]); });
    if (op.shard().cut) {
      write_by_sets(op, local, file.get(), at);
      continue;
    }
    const at::Tensor whole = gathered(op, local);
    agree(comm, [&] {
      if (file) with_entries(whole, [&](auto entries) { file->write(at, entries); });
    });
  }
  agree(comm, [&] {
    if (file) file->commit();
  });
}

void write_vectors(const LinearOperator& op, const std::filesystem::path& path, VectorsInfo info, std::size_t count,
                   const std::function<at::Tensor(std::size_t)>& vectors) {
  std::vector<std::optional<std::size_t>> all;
  for (std::size_t i = 0; i < count; ++i) all.emplace_back(i);
  write_vectors(op, path, std::move(info), all, vectors);
}

}  // namespace hesspect
