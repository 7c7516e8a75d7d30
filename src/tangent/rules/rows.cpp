// Rows that an index names: embeddings, bags of them, and indexing by integers. The adjoint adds rows back into the sum
// that is there already, in the index's order: no second table lives.
#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>

#include "hesspect/tangent/kernels.h"

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {
namespace {

/// Which rows of tables [B, V, d] are read.
class RowIndex {
 public:
  RowIndex() = default;
  /// @param padding  rows that are read from there count as zero in all derivatives; −1: none
  explicit RowIndex(const at::Tensor& index, std::int64_t padding = -1)
      : flat_(index.reshape({-1}).to(at::kLong)), padding_(padding) {
    if (padding_ >= 0) is_padding_ = (flat_ == padding_).unsqueeze(1);
  }

  std::int64_t size() const { return flat_.size(0); }

  /// @return [B, T, d]
  at::Tensor read(const at::Tensor& tables) const {
    at::Tensor rows = tables.index_select(1, flat_);
    if (is_padding_.defined()) rows.masked_fill_(is_padding_, 0);
    return rows;
  }

  /// tables[b, index[t]] += rows[b, t]
  void add(const at::Tensor& tables, const at::Tensor& rows) const {
    const bool has_kernel = tables.scalar_type() == at::kFloat || tables.scalar_type() == at::kDouble;
    if (has_kernel && tables.size(0) > 0 && tables[0].is_contiguous()) {
      if (!order_.sorted.defined()) order_ = fused::order_rows(flat_);
      return fused::rows_add({.rows = order_,
                              .src = rows.contiguous(),
                              .out = tables,
                              .columns = tables.size(2),
                              .padding_index = padding_});
    }
    tables.index_add_(1, flat_, is_padding_.defined() ? rows.masked_fill(is_padding_, 0) : rows);
  }

 private:
  at::Tensor flat_;  // [T]
  std::int64_t padding_ = -1;
  at::Tensor is_padding_;          // [T, 1]
  mutable fused::RowOrder order_;  // made when rows are added first
};

/// An argument [outer, V, inner] whose middle dimensions an index replaces.
struct Table {
  std::vector<std::int64_t> shape;
  std::int64_t outer = 1, rows = 1, inner = 1;

  /// @param begin, end  the middle dimensions
  Table(std::vector<std::int64_t> the_shape, std::size_t begin, std::size_t end) : shape(std::move(the_shape)) {
    for (std::size_t d = 0; d < shape.size(); ++d) (d < begin ? outer : d < end ? rows : inner) *= shape[d];
  }

  /// [K outer, rows, inner]. A parameter's tangents are a view of longer vectors: without outer dimensions they stay
  /// one.
  at::Tensor tables_of(const at::Tensor& stacked) const {
    if (outer == 1 && stacked[0].is_contiguous()) return stacked.view({stacked.size(0), rows, inner});
    return stacked.reshape({-1, rows, inner});
  }

  /// Adds rows y [K outer, T, inner] to the operand's sum. @param like  has its dtype and device
  void add(Sink& sink, const RowIndex& index, const at::Tensor& y, const at::Tensor& like) const {
    const at::Tensor sum = sink.open_or_zeros(0, like.expand(shape));
    if (sum.is_contiguous() || (outer == 1 && sum[0].is_contiguous()))
      return index.add(sum.view({sum.size(0) * outer, rows, inner}), y);
    const at::Tensor dense = stacked_zeros(sum.size(0), shape, like);
    index.add(tables_of(dense), y);
    sink.add(0, dense);
  }
};

/// embedding, index_select, and x[.., i, j, ..] of integers at neighbouring dimensions.
class ReadRows final : public NodeRun {
 public:
  ReadRows(Arguments arguments, Table table, RowIndex index)
      : arguments_(std::move(arguments)),
        table_(std::move(table)),
        index_(std::move(index)),
        like_(at::empty({}, arguments_.tensor(0).options())) {}

  std::vector<at::Tensor> value() override {
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    y_shape_ = y.sizes().vec();
    return {std::move(y)};
  }
  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    std::vector<std::int64_t> shape = y_shape_;
    shape.insert(shape.begin(), x_dot.count());
    return {index_.read(table_.tables_of(x_dot.at(0))).view(shape)};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const {
    if (!sink.wants(0)) return;
    table_.add(sink, index_, y.reshape({y.size(0) * table_.outer, index_.size(), table_.inner}), like_);
  }

  Arguments arguments_;
  Table table_;
  RowIndex index_;
  at::Tensor like_;
  std::vector<std::int64_t> y_shape_;
};

/// embedding(weight, indices, padding_idx, scale_grad_by_freq, sparse)
std::unique_ptr<NodeRun> make_embedding(Arguments& arguments) {
  const bool scales = arguments.values.size() > 3 && arguments.values[3].toBool();
  if (arguments.active_beyond({0}) || scales || arguments.tensor(0).dim() != 2) return nullptr;
  const std::int64_t padding = arguments.values.size() > 2 ? arguments.values[2].toInt() : -1;
  Table table(arguments.tensor(0).sizes().vec(), 0, 1);
  RowIndex index(arguments.tensor(1), padding);
  return std::make_unique<ReadRows>(std::move(arguments), std::move(table), std::move(index));
}

/// index_select(x, dim, index)
std::unique_ptr<NodeRun> make_index_select(Arguments& arguments) {
  const at::Tensor& x = arguments.tensor(0);
  if (arguments.active_beyond({0}) || x.dim() == 0) return nullptr;
  const auto dim = static_cast<std::size_t>(at::maybe_wrap_dim(arguments.values[1].toInt(), x.dim()));
  Table table(x.sizes().vec(), dim, dim + 1);
  RowIndex index(arguments.tensor(2));
  return std::make_unique<ReadRows>(std::move(arguments), std::move(table), std::move(index));
}

/// index.Tensor(x, indices): the rows as one index into the dimensions that are indexed, in order.
std::unique_ptr<NodeRun> make_index(Arguments& arguments) {
  const at::Tensor& x = arguments.tensor(0);
  if (arguments.active_beyond({0})) return nullptr;
  std::vector<at::Tensor> by_dim;  // undefined: the whole dimension
  const auto note = [&](const at::Tensor& index) {
    if (index.defined() && (index.scalar_type() == at::kBool || index.scalar_type() == at::kByte))
      for (const at::Tensor& column : index.nonzero().unbind(1)) by_dim.push_back(column);
    else
      by_dim.push_back(index.defined() ? index.to(x.device(), at::kLong) : index);
  };
  if (arguments.values[1].isTensorList())
    for (const at::Tensor& index : arguments.values[1].toTensorVector()) note(index);
  else
    for (const std::optional<at::Tensor>& index : arguments.values[1].toOptionalTensorVector())
      note(index.value_or(at::Tensor()));
  std::size_t begin = 0, end = by_dim.size();
  while (begin < end && !by_dim[begin].defined()) ++begin;
  while (end > begin && !by_dim[end - 1].defined()) --end;
  if (begin == end) return nullptr;
  at::Tensor index;
  for (std::size_t d = begin; d < end; ++d) {
    if (!by_dim[d].defined()) return nullptr;  // the result's dimensions would go to the front
    const std::int64_t size = x.size(static_cast<std::int64_t>(d));
    const at::Tensor wrapped = at::where(by_dim[d] < 0, by_dim[d] + size, by_dim[d]);
    index = index.defined() ? index * size + wrapped : wrapped;
  }
  Table table(x.sizes().vec(), begin, end);
  RowIndex rows(index);
  return std::make_unique<ReadRows>(std::move(arguments), std::move(table), std::move(rows));
}

/// embedding_bag(weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset,
/// padding_idx), as model/rewrites.cpp runs it: sums or means of the rows from one offset up to the next.
class EmbeddingBag final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    return arguments.instruction.kind == Instruction::Kind::kRewritten && !arguments.active_beyond({0});
  }

  explicit EmbeddingBag(Arguments arguments)
      : arguments_(std::move(arguments)),
        table_(arguments_.tensor(0).sizes().vec(), 0, 1),
        like_(at::empty({}, arguments_.tensor(0).options())),
        index_(arguments_.tensor(1)) {
    const at::Tensor offsets = arguments_.tensor(2).to(at::kLong);
    bags_ = offsets.size(0) - (arguments_.values[7].toBool() ? 1 : 0);
    const at::Tensor positions = at::arange(index_.size(), offsets.options());
    bag_ = at::bucketize(positions, offsets.narrow(0, 0, bags_), /*out_int32=*/false, /*right=*/true) - 1;
    at::Tensor counted = at::ones({index_.size()}, like_.options());
    if (arguments_.values.size() > 8 && arguments_.values[8].isInt() && arguments_.values[8].toInt() >= 0)
      counted = (arguments_.tensor(1).reshape({-1}) != arguments_.values[8].toInt()).to(like_.scalar_type());
    factor_ = arguments_.optional_tensor(6).defined() ? counted * arguments_.tensor(6).reshape({-1}) : counted;
    if (arguments_.values[4].toInt() == 1) {  // a mean
      const at::Tensor count = at::zeros({bags_}, like_.options()).index_add(0, bag_, counted);
      factor_ = factor_ / count.clamp_min(1).index_select(0, bag_);
    }
    factor_ = factor_.unsqueeze(1);
  }

  std::vector<at::Tensor> value() override {
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    return {std::move(y)};
  }
  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    const at::Tensor y_dot = stacked_zeros(x_dot.count(), {bags_, table_.inner}, like_);
    return {y_dot.index_add_(1, bag_, index_.read(x_dot.at(0)).mul_(factor_))};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const {
    if (sink.wants(0)) table_.add(sink, index_, y.index_select(1, bag_).mul_(factor_), like_);
  }

  Arguments arguments_;
  Table table_;
  at::Tensor like_;
  RowIndex index_;
  std::int64_t bags_ = 0;
  at::Tensor bag_, factor_;  // of each index: its bag, and what its row is multiplied by [T, 1]
};

}  // namespace

const RuleTable& row_rules() {
  static const RuleTable rules = {
      {{"embedding"}, make_embedding},
      {{"index_select"}, make_index_select},
      {{"index.Tensor"}, make_index},
      {{"embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"}, make_rule<EmbeddingBag>},
  };
  return rules;
}

}  // namespace hesspect
