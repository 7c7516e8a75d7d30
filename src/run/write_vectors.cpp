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
  return agreed(comm, [&] {
    if (comm.rank() != 0) return at::Tensor();
    if (!op.shard().cut) return full.narrow(0, 0, op.shard().n).cpu();
    at::Tensor in_order = at::empty({op.shard().n}, local.options().device(at::kCPU));
    for (int rank = 0; rank < comm.size(); ++rank)
      op.shard().for_each_piece_of(rank, [&](std::int64_t position, std::int64_t begin, std::int64_t size) {
        in_order.narrow(0, begin, size).copy_(full.narrow(0, rank * op.shard().chunk + position, size));
      });
    return in_order;
  });
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
    const at::Tensor whole = gathered(op, agreed(comm, [&] { return vectors(*which[i]); }));
    agree(comm, [&] {
      if (!file) return;
      const auto entries = static_cast<std::size_t>(whole.numel());
      if (whole.scalar_type() == at::kFloat)
        file->write(at, std::span(whole.const_data_ptr<float>(), entries));
      else
        file->write(at, std::span(whole.const_data_ptr<double>(), entries));
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
