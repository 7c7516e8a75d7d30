#include "parameter_changes.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace hesspect::changes {
namespace {

constexpr double kPerturbation = 0.1;    // how far parameters are moved, over a tensor's root mean square
constexpr double kOfZeroTensors = 0.05;  // how far those of a tensor of zeros are moved
constexpr std::uint64_t kSeed = 20261128;
constexpr std::uint64_t kDraws = 64;  // seeds of a tensor
/// Random numbers repeat after so many entries of a tensor: more would take longer to draw than a check itself. It is a
/// prime, so that rows of a matrix do not get the same ones.
constexpr std::int64_t kPeriod = 65537;

/// The tensor's entries as [repeats, kPeriod], and what is left over [entries].
std::vector<at::Tensor> pieces(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.view({-1});
  const std::int64_t repeats = flat.numel() / kPeriod, rest = flat.numel() % kPeriod;
  std::vector<at::Tensor> all;
  if (repeats > 0) all.push_back(flat.narrow(0, 0, repeats * kPeriod).view({repeats, kPeriod}));
  if (rest > 0) all.push_back(flat.narrow(0, repeats * kPeriod, rest));
  return all;
}

at::Generator generator(std::size_t which, std::uint64_t draw) {
  return at::detail::createCPUGenerator(kSeed + kDraws * which + draw);
}

}  // namespace

void move_away(const at::Tensor& tensor, std::size_t which) {
  if (tensor.numel() == 0) return;
  const double norm = at::linalg_vector_norm(tensor, 2, {}, /*keepdim=*/false, at::kDouble).item<double>();
  const double size = norm / std::sqrt(static_cast<double>(tensor.numel()));
  const double scale = size > 0 ? kPerturbation * size : kOfZeroTensors;
  const at::Tensor normal = at::randn({std::min(tensor.numel(), kPeriod)}, generator(which, 0), at::kFloat);
  for (const at::Tensor& piece : pieces(tensor))
    piece.add_(normal.narrow(0, 0, piece.size(-1)).to(tensor.options()), scale);
}

void round(const at::Tensor& tensor, std::size_t which, double epsilon, int draw) {
  const std::int64_t drawn = std::min(tensor.numel(), kPeriod);
  const at::Tensor signs =
      at::randint(0, 2, {drawn}, generator(which, 1 + static_cast<std::uint64_t>(draw)), at::kDouble).mul_(2).sub_(1);
  const at::Tensor factor = signs.mul_(epsilon).add_(1);
  for (const at::Tensor& piece : pieces(tensor)) piece.mul_(factor.narrow(0, 0, piece.size(-1)).to(tensor.options()));
}

}  // namespace hesspect::changes
