#include "hesspect/run/write_vectors.h"

#include <ATen/ATen.h>

#include <memory>
#include <span>
#include <utility>

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

}  // namespace

void write_vectors(const LinearOperator& op, const std::filesystem::path& path, VectorsInfo info, std::size_t count,
                   const std::function<at::Tensor(std::size_t)>& vectors) {
  Communicator& comm = op.comm();
  std::unique_ptr<VectorsFile> file;
  info.float64 = op.options().dtype() == at::kDouble;
  agree(comm, [&] {
    if (comm.rank() == 0) file = std::make_unique<VectorsFile>(path, info);
  });
  for (std::size_t i = 0; i < count; ++i) {
    const at::Tensor whole = gathered(op, agreed(comm, [&] { return vectors(i); }));
    agree(comm, [&] {
      if (!file) return;
      const auto entries = static_cast<std::size_t>(whole.numel());
      const auto at = static_cast<std::int64_t>(i);
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

}  // namespace hesspect
