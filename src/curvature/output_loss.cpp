#include "output_loss.h"

#include <ATen/ATen.h>

#include <cmath>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

const OutputSpec& spec_of(const Program& program, int index) {
  return program.outputs()[static_cast<std::size_t>(index)];
}

double checked_count(const Program& program, const at::Tensor& counts, int index, const MicroBatch& batch) {
  at::Tensor flat = counts.detach().to(at::kDouble).reshape({-1});
  if (is_per_row_output(program, index)) flat = flat.narrow(0, 0, batch.rows);  // without padding
  const double count = flat.sum().item<double>();
  if (!std::isfinite(count) || count < 0)
    throw InputError("--count-output: " + name_of_output(program, index) + " is " + std::to_string(count) +
                     " on the rows from " + std::to_string(batch.first_row) +
                     "; expected how many terms the loss is the mean of, or their weight");
  return count;
}

/// What the sum takes of its output, or of each row of it.
double scale_of(const Program& program, const LossOptions& options, int index, double count) {
  return options.reduction == Reduction::kMean && !is_per_row_output(program, index) ? count : 1;
}

/// scale · Σ z. There is nothing to keep of z.
class LinearRows final : public RowObjective {
 public:
  LinearRows(const at::Tensor& output_like, double scale, bool outer)
      : RowObjective(output_like.sizes().vec(), output_like.dim()), scale_(scale), outer_(outer) {}

  double prepare(at::Tensor z, std::int64_t) const override { return scale_ * z.sum(at::kDouble).item<double>(); }
  void adjoint(const at::Tensor&, std::int64_t, at::Tensor out) const override { out.fill_(scale_); }
  void adjoint_tangent(const at::Tensor&, std::int64_t, const at::Tensor& z_dot, at::Tensor out) const override {
    if (outer_)
      at::mul_out(out, z_dot, at::full({}, scale_ * scale_, z_dot.options()));
    else
      out.zero_();
  }
  bool is_curved() const override { return outer_; }

 private:
  double scale_;
  bool outer_;
};

}  // namespace

std::string name_of_output(const Program& program, int index) {
  const OutputSpec& spec = spec_of(program, index);
  return "output " + std::to_string(index) + " (" + quote(spec.path.empty() ? spec.name : spec.path) + ")";
}

bool is_per_row_output(const Program& program, int index) {
  const std::vector<Dimension>& shape = spec_of(program, index).shape;
  for (const Dimension& dimension : shape)
    if (!dimension.is_static() || dimension.size != 1) return true;
  return false;
}

at::Tensor output_of(const Program& program, const std::vector<at::Tensor>& outputs, int index, const MicroBatch& batch,
                     bool may_be_scalar) {
  const at::Tensor& output = outputs[static_cast<std::size_t>(index)];
  if (output.defined() && output.is_complex())
    throw InputError("output " + std::to_string(index) +
                     " of the model is complex, and a loss is taken of real numbers: give its absolute value, its real "
                     "part or torch.view_as_real of it");
  if (!output.defined() || !at::isFloatingType(output.scalar_type()))
    throw InputError("output " + std::to_string(index) + " of the model is not a floating tensor");
  if (may_be_scalar && !is_per_row_output(program, index)) return output;
  const std::int64_t dim = spec_of(program, index).batch_dim;
  if (output.dim() <= dim || output.size(dim) != batch.padded)
    throw InputError(name_of_output(program, index) + " of the model has shape " + format_shape(output.sizes().vec()) +
                     " where " + std::to_string(batch.padded) + " rows were fed; expected as many in dimension " +
                     std::to_string(dim) + " (--output-index names another output, --batch-dim " +
                     spec_of(program, index).name + "=D another dimension of the rows)");
  return output.movedim(dim, 0).narrow(0, 0, batch.rows);
}

LossSum output_loss(const Program& program, const LossOptions& options, int index, const MicroBatch& batch) {
  const std::vector<at::Tensor> outputs = program.run(batch.inputs);
  const at::Tensor output = output_of(program, outputs, index, batch, /*may_be_scalar=*/true);
  const double count = output_count(program, options, outputs, batch);
  return {output.sum() * scale_of(program, options, index, count), count};
}

double output_count(const Program& program, const LossOptions& options, const std::vector<at::Tensor>& outputs,
                    const MicroBatch& batch) {
  if (options.count_output < 0) return static_cast<double>(batch.rows);
  return checked_count(program, outputs[static_cast<std::size_t>(options.count_output)], options.count_output, batch);
}

std::unique_ptr<RowObjective> output_rows(const Program& program, const LossOptions& options, int index,
                                          const at::Tensor& output_like, double count, bool outer) {
  return std::make_unique<LinearRows>(output_like, scale_of(program, options, index, count), outer);
}

void check_output_loss(const Program& program, const LossOptions& options, int index, const MicroBatch& batch) {
  const std::vector<at::Tensor> outputs = program.run(batch.inputs);
  const auto shape_of = [](const at::Tensor& tensor) { return format_shape(tensor.sizes().vec()); };
  const at::Tensor& output = outputs[static_cast<std::size_t>(index)];
  if (output.numel() != 1 && output.numel() != batch.padded)
    throw InputError("loss 'output': the model's " + name_of_output(program, index) + " has shape " + shape_of(output) +
                     "; expected a scalar, the mean loss of its rows, or one loss for each of the " +
                     std::to_string(batch.padded) + " rows");
  if (options.count_output < 0) return;
  const at::Tensor& count = outputs[static_cast<std::size_t>(options.count_output)];
  const std::string name = "--count-output: " + name_of_output(program, options.count_output);
  if (!count.defined() || at::isComplexType(count.scalar_type())) throw InputError(name + " is no real tensor");
  if (count.numel() != 1 && count.numel() != batch.padded)
    throw InputError(name + " has shape " + shape_of(count) + "; expected a scalar, or a number for each of the " +
                     std::to_string(batch.padded) + " rows");
  if (count.requires_grad())
    throw InputError(name + " depends on the model's parameters; a loss can be put together from micro-batches only " +
                     "where its count is a constant (detach it in the model if that is meant)");
}

}  // namespace hesspect
