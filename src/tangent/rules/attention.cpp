// Scaled dot product attention: P = softmax(scale·q kᵀ + mask), o = P v.
//
// It runs in blocks of some batches, or of some rows of queries of one batch, whose scores fit in a core's cache. Where
// P as a whole is small it is kept, block by block, and with it what softmax's derivatives need; where not, each sweep
// makes its blocks again from q, k and v, as flash attention does (Dao et al. 2022), and nothing of the size of P lives
// but a block.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "../registry.h"
#include "../stacked.h"
#include "fused_sum.h"
#include "hesspect/tangent/kernels.h"

namespace hesspect {
namespace {

constexpr std::int64_t kKeptBytes = std::int64_t{64} << 20;  // P is kept up to this size
constexpr std::int64_t kCpuBlock = std::int64_t{1} << 16;    // scores of a block: five such lie in a core's cache
constexpr std::int64_t kGpuBlock = std::int64_t{1} << 24;

/// Some batches, or of one batch some heads and rows of queries; of queries that share a head of keys, one.
/// Scores [batches, groups, rows, columns].
struct Block {
  std::int64_t batch, batches;
  std::int64_t group, groups;  // heads of keys
  std::int64_t member;         // of the heads of queries that share one of keys
  std::int64_t row, rows;
  std::int64_t columns;  // those that the block's rows may see
};

/// Where a sum of products goes: a block of an array, written or added to.
class Target {
 public:
  /// @param place  [batches, groups, rows, d]; undefined: nothing is wanted
  Target(at::Tensor place, bool add) : place_(std::move(place)), add_(add) {}

  bool wanted() const { return place_.defined(); }
  /// += a b.
  void product(const at::Tensor& a, const at::Tensor& b) {
    multiply(place_, a, b, add_);
    add_ = true;
  }
  void close() {
    if (!add_) place_.zero_();
  }

 private:
  at::Tensor place_;
  bool add_;
};

class Attention final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const at::Tensor &q = arguments.tensor(0), &k = arguments.tensor(1), &v = arguments.tensor(2);
    const at::Tensor mask = arguments.optional_tensor(3);
    const bool is_causal = arguments.values[5].toBool(), is_grouped = arguments.values[7].toBool();
    if (!is_fusible(q) || k.scalar_type() != q.scalar_type() || v.scalar_type() != q.scalar_type()) return false;
    if (arguments.active_beyond({0, 1, 2}) || arguments.values[4].toDouble() != 0) return false;
    if (mask.defined() && (is_causal || (mask.scalar_type() != at::kBool && mask.scalar_type() != q.scalar_type())))
      return false;
    if (q.numel() == 0 || k.numel() == 0 || v.numel() == 0) return false;
    return shapes_fit(q, k, v, is_grouped) && (!mask.defined() || mask.dim() <= q.dim());
  }

  explicit Attention(const Arguments& arguments)
      : q_shape_(arguments.tensor(0).sizes().vec()),
        k_shape_(arguments.tensor(1).sizes().vec()),
        v_shape_(arguments.tensor(2).sizes().vec()),
        k_(heads_of(arguments.tensor(1).unsqueeze(0))[0]),
        v_(heads_of(arguments.tensor(2).unsqueeze(0))[0]),
        groups_(k_.size(1)),
        q_(queries_of(arguments.tensor(0).unsqueeze(0))[0]),
        heads_inside_(q_.stride(3) > q_.stride(2)),
        is_causal_(arguments.values[5].toBool()) {
    const c10::IValue& scale = arguments.values[6];
    scale_ = scale.isNone() ? 1 / std::sqrt(static_cast<double>(q_.size(-1))) : scale.toScalar().toDouble();
    set_mask(arguments.optional_tensor(3));
    make_blocks();
    q_ = packed(q_);
    k_ = packed(k_);
    v_ = packed(v_);
  }

  std::vector<at::Tensor> value() override {
    at::Tensor o = at::empty(output_shape(1), q_.options());
    const at::Tensor o_heads = queries_of(o)[0];
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const at::Tensor p = make_p(blocks_[i]);
      product_into(place_of(o_heads, blocks_[i]), p, key_place_of(v_, blocks_[i]));
      if (keeps_) p_.push_back(p);
    }
    return {o.squeeze(0)};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    count_ = dots.count();
    q_dot_ = packed(queries_of(dots.at(0)));
    k_dot_ = packed(heads_of(dots.at(1)));
    v_dot_ = packed(heads_of(dots.at(2)));
    at::Tensor o_dot = at::empty(output_shape(count_), q_.options());
    const at::Tensor o_heads = queries_of(o_dot);
    p_dot_.clear();
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const Block& block = blocks_[i];
      const at::Tensor p = p_of(i), p_dot = make_p_dot(block, p);
      for (std::int64_t k = 0; k < count_; ++k) {
        Target target(place_of(part(o_heads, k), block), false);
        if (p_dot.defined()) target.product(part(p_dot, k), key_place_of(v_, block));
        if (v_dot_.defined()) target.product(p, key_place_of(part(v_dot_, k), block));
        target.close();
      }
      if (keeps_ && count_ * p_bytes_ <= kKeptBytes && p_dot.defined()) p_dot_.push_back(p_dot);
    }
    return {o_dot};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    o_bar_ = packed(queries_of(y_bar[0])[0]);
    p_bar_.clear();
    Sums sums(*this, sink);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const Block& block = blocks_[i];
      const at::Tensor p = p_of(i), o_bar = place_of(o_bar_, block);
      at::Tensor p_bar = scores(o_bar, turned(key_place_of(v_, block)));
      const at::Tensor s_bar = softmax_adjoint(block, p, p_bar, row_sums(p));
      sums.at_block(block, 0);
      if (sums.q.wanted()) sums.q.product(s_bar, key_place_of(k_, block));
      if (sums.k.wanted()) sums.k.product(turned(s_bar), place_of(q_, block));
      if (sums.v.wanted()) sums.v.product(turned(p), o_bar);
      sums.close_block();
      if (keeps_) p_bar_.push_back(std::move(p_bar));
    }
    sums.close();
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor o_bar_dot = packed(queries_of(y_bar_dot[0]));
    const bool has_dots = q_dot_.defined() || k_dot_.defined() || v_dot_.defined();
    if (o_bar_dot.defined() || (o_bar_.defined() && has_dots)) {
      count_ = sink.count();
      Sums sums(*this, sink);
      for (std::size_t i = 0; i < blocks_.size(); ++i) add_block(i, o_bar_dot, sums);
      sums.close();
    }
    q_dot_ = k_dot_ = v_dot_ = at::Tensor();
    p_dot_.clear();
  }

 private:
  // --- shapes -----------------------------------------------------------------------------------------------------

  static bool shapes_fit(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool is_grouped) {
    const std::int64_t dims = q.dim();
    if (dims < 2 || dims > 4 || k.dim() != dims || v.dim() != dims || q.size(-1) != k.size(-1) ||
        k.size(-2) != v.size(-2))
      return false;
    for (std::int64_t d = 0; d < dims - 2; ++d) {
      const bool may_share = is_grouped && dims == 4 && d == 1;
      if (k.size(d) != v.size(d) || (may_share ? q.size(d) % k.size(d) != 0 : q.size(d) != k.size(d))) return false;
    }
    return true;
  }

  /// [K, (batch, (heads,)) n, d] -> [K, batch, heads, n, d]; undefined where it is.
  static at::Tensor heads_of(const at::Tensor& stacked) {
    if (!stacked.defined()) return stacked;
    if (stacked.dim() == 3) return stacked.unsqueeze(1).unsqueeze(1);
    return stacked.dim() == 4 ? stacked.unsqueeze(2) : stacked;
  }
  /// The same of queries -> [K, batch, groups, members of a group, rows, d].
  at::Tensor queries_of(const at::Tensor& stacked) const {
    return stacked.defined() ? heads_of(stacked).unflatten(2, {groups_, -1}) : stacked;
  }
  /// One copy here, where blocks would else take one at each use.
  at::Tensor packed(const at::Tensor& heads) const {
    if (!heads.defined()) return heads;
    return packs_ ? heads.contiguous() : readable(heads);
  }

  std::vector<std::int64_t> output_shape(std::int64_t count) const {
    std::vector<std::int64_t> shape = with_count(count, q_shape_);
    shape.back() = v_shape_.back();
    return shape;
  }

  std::int64_t batches() const { return q_.size(0); }
  std::int64_t members() const { return q_.size(2); }
  std::int64_t query_rows() const { return q_.size(3); }
  std::int64_t key_rows() const { return k_.size(2); }

  /// [batch, groups, members, rows, d] -> a block's [batches, groups, rows, d].
  static at::Tensor place_of(const at::Tensor& heads, const Block& block) {
    const at::IntArrayRef strides = heads.strides();
    return strided(heads, {block.batches, block.groups, block.rows, heads.size(4)},
                   {strides[0], strides[1], strides[3], strides[4]},
                   heads.storage_offset() + block.batch * strides[0] + block.group * strides[1] +
                       block.member * strides[2] + block.row * strides[3]);
  }
  /// The same of keys [batch, groups, rows, d].
  static at::Tensor key_place_of(const at::Tensor& heads, const Block& block) {
    const at::IntArrayRef strides = heads.strides();
    return strided(heads, {block.batches, block.groups, block.columns, heads.size(3)}, strides,
                   heads.storage_offset() + block.batch * strides[0] + block.group * strides[1]);
  }

  void make_blocks() {
    const std::int64_t most = q_.is_cpu() ? kCpuBlock : kGpuBlock;
    const std::int64_t few_rows = std::min<std::int64_t>(64, query_rows());
    const std::int64_t heads = std::clamp<std::int64_t>(most / (few_rows * key_rows()), 1, groups_);
    const std::int64_t of_row = heads * key_rows(), of_batch = groups_ * key_rows() * query_rows();
    const std::int64_t rows = std::clamp(most / of_row, few_rows, query_rows());
    const std::int64_t at_once = std::clamp<std::int64_t>(most / of_batch, 1, batches());
    for (std::int64_t batch = 0; batch < batches(); batch += at_once)
      for (std::int64_t group = 0; group < groups_; group += heads)
        for (std::int64_t member = 0; member < members(); ++member)
          for (std::int64_t row = 0; row < query_rows(); row += rows) {
            const std::int64_t end = std::min(row + rows, query_rows());
            blocks_.push_back({batch, std::min(at_once, batches() - batch), group, std::min(heads, groups_ - group),
                               member, row, end - row, is_causal_ ? std::min(key_rows(), end) : key_rows()});
          }
    packs_ = at_once > 1 && !q_.is_cpu();
    shares_keys_ = members() > 1 || rows < query_rows() || (is_causal_ && query_rows() < key_rows());
    p_bytes_ = batches() * members() * of_batch * static_cast<std::int64_t>(q_.element_size());
    keeps_ = p_bytes_ <= kKeptBytes;
  }

  /// What is added to the scores, seen as [batch, groups, members, rows, columns].
  void set_mask(const at::Tensor& mask) {
    if (!mask.defined()) return;
    at::Tensor added = mask;
    if (mask.scalar_type() == at::kBool)
      added = at::zeros(mask.sizes(), q_.options())
                  .masked_fill_(mask.logical_not(), -std::numeric_limits<double>::infinity());
    std::vector<std::int64_t> shape = q_shape_;
    shape.back() = key_rows();
    mask_ = queries_of(added.expand(shape).unsqueeze(0))[0];
  }

  // --- softmax of a block -----------------------------------------------------------------------------------------

  fused::CausalMask causal(const Block& block) const { return {is_causal_, block.rows, block.row}; }
  static at::Tensor row_sums(const at::Tensor& p) {
    return at::empty({p.size(0) * p.size(1) * p.size(2)}, p.options());
  }

  /// a b as a new tensor.
  static at::Tensor scores(const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor s = at::empty({a.size(0), a.size(1), a.size(2), b.size(3)}, a.options());
    multiply(s, a, b, false);
    return s;
  }

  at::Tensor make_p(const Block& block) const {
    at::Tensor p = scores(place_of(q_, block), turned(key_place_of(k_, block)));
    fused::softmax({.s = p,
                    .p = p,
                    .mask = mask_.defined() ? place_of(mask_, block) : mask_,
                    .columns = block.columns,
                    .heads = block.groups,
                    .query_rows = block.rows,
                    .scale = scale_,
                    .causal = causal(block),
                    .zero_if_masked = true});
    return p;
  }
  at::Tensor p_of(std::size_t i) const { return keeps_ ? p_[i] : make_p(blocks_[i]); }

  /// [K, scores]; undefined where zero.
  at::Tensor make_p_dot(const Block& block, const at::Tensor& p) const {
    if (!q_dot_.defined() && !k_dot_.defined()) return {};
    at::Tensor s_dot = at::empty(with_count(count_, p.sizes()), p.options());
    for (std::int64_t k = 0; k < count_; ++k) {
      Target target(part(s_dot, k), false);
      if (q_dot_.defined()) target.product(place_of(part(q_dot_, k), block), turned(key_place_of(k_, block)));
      if (k_dot_.defined()) target.product(place_of(q_, block), turned(key_place_of(part(k_dot_, k), block)));
    }
    fused::softmax_tangent(
        {.p = p, .s_dot = s_dot, .p_dot = s_dot, .columns = block.columns, .scale = scale_, .causal = causal(block)});
    return s_dot;
  }

  /// @param r  [rows of the block]; becomes ⟨p, p_bar⟩
  at::Tensor softmax_adjoint(const Block& block, const at::Tensor& p, const at::Tensor& p_bar,
                             const at::Tensor& r) const {
    const at::Tensor s_bar = at::empty_like(p);
    fused::softmax_adjoint({.p = p,
                            .p_bar = p_bar,
                            .s_bar = s_bar,
                            .r = r,
                            .columns = block.columns,
                            .scale = scale_,
                            .causal = causal(block)});
    return s_bar;
  }

  // --- adjoints ---------------------------------------------------------------------------------------------------

  /// The sums of q, k and v, and the places of a block in them.
  struct Sums {
    const Attention& of;
    Sink& sink;
    at::Tensor wholes[3];  // in the arguments' shapes
    bool adds[3];
    at::Tensor heads[3];
    Target q{{}, false}, k{{}, false}, v{{}, false};

    Sums(const Attention& attention, Sink& the_sink) : of(attention), sink(the_sink) {
      const std::vector<std::int64_t>* shapes[] = {&of.q_shape_, &of.k_shape_, &of.v_shape_};
      for (std::size_t i = 0; i < 3; ++i) {
        if (!sink.wants(i)) continue;
        wholes[i] = sink.open(i);
        adds[i] = wholes[i].defined();
        if (!adds[i]) wholes[i] = of.new_sum(*shapes[i], sink.count(), /*zero=*/i > 0 && of.shares_keys_);
        heads[i] = i == 0 ? of.queries_of(wholes[i]) : heads_of(wholes[i]);
      }
    }
    void at_block(const Block& block, std::int64_t tangent) {
      if (heads[0].defined()) q = Target(place_of(part(heads[0], tangent), block), adds[0]);
      if (heads[1].defined()) k = Target(key_place_of(part(heads[1], tangent), block), adds[1] || of.shares_keys_);
      if (heads[2].defined()) v = Target(key_place_of(part(heads[2], tangent), block), adds[2] || of.shares_keys_);
    }
    void close_block() {
      for (Target* target : {&q, &k, &v})
        if (target->wanted()) target->close();
    }
    void close() {
      for (std::size_t i = 0; i < 3; ++i)
        if (wholes[i].defined() && !adds[i]) sink.add(i, std::move(wholes[i]));
    }
  };

  void add_block(std::size_t i, const at::Tensor& o_bar_dots, Sums& sums) const {
    const Block& block = blocks_[i];
    const at::Tensor p = p_of(i), p_dot = p_dot_.empty() ? make_p_dot(block, p) : p_dot_[i];
    const at::Tensor q = place_of(q_, block), k = key_place_of(k_, block), v = key_place_of(v_, block);
    at::Tensor o_bar, p_bar, r, s_bar;
    if (o_bar_.defined()) {
      o_bar = place_of(o_bar_, block);
      p_bar = keeps_ ? p_bar_[i] : scores(o_bar, turned(v));
      r = row_sums(p);
      s_bar = softmax_adjoint(block, p, p_bar, r);
    }
    for (std::int64_t n = 0; n < count_; ++n) {
      const at::Tensor o_bar_dot = o_bar_dots.defined() ? place_of(part(o_bar_dots, n), block) : o_bar_dots;
      const at::Tensor s_bar_dot =
          make_s_bar_dot(block, n, p, p_dot.defined() ? part(p_dot, n) : p_dot, p_bar, r, o_bar, o_bar_dot);
      sums.at_block(block, n);
      if (sums.q.wanted()) {
        if (s_bar_dot.defined()) sums.q.product(s_bar_dot, k);
        if (s_bar.defined() && k_dot_.defined()) sums.q.product(s_bar, key_place_of(part(k_dot_, n), block));
      }
      if (sums.k.wanted()) {
        if (s_bar_dot.defined()) sums.k.product(turned(s_bar_dot), q);
        if (s_bar.defined() && q_dot_.defined()) sums.k.product(turned(s_bar), place_of(part(q_dot_, n), block));
      }
      if (sums.v.wanted()) {
        if (o_bar_dot.defined()) sums.v.product(turned(p), o_bar_dot);
        if (o_bar.defined() && p_dot.defined()) sums.v.product(turned(part(p_dot, n)), o_bar);
      }
      sums.close_block();
    }
  }

  /// @return undefined where zero
  at::Tensor make_s_bar_dot(const Block& block, std::int64_t n, const at::Tensor& p, const at::Tensor& p_dot,
                            const at::Tensor& p_bar, const at::Tensor& r, const at::Tensor& o_bar,
                            const at::Tensor& o_bar_dot) const {
    const bool bends = p_bar.defined() && p_dot.defined();
    const bool has_p_bar_dot = o_bar_dot.defined() || (o_bar.defined() && v_dot_.defined());
    if (!bends && !has_p_bar_dot) return {};
    const at::Tensor s_bar_dot = at::empty_like(p);
    Target p_bar_dot(s_bar_dot, false);
    if (o_bar_dot.defined()) p_bar_dot.product(o_bar_dot, turned(key_place_of(v_, block)));
    if (o_bar.defined() && v_dot_.defined()) p_bar_dot.product(o_bar, turned(key_place_of(part(v_dot_, n), block)));
    fused::softmax_adjoint_tangent({.p = p,
                                    .p_dot = bends ? p_dot : at::Tensor(),
                                    .p_bar = bends ? p_bar : at::Tensor(),
                                    .r = bends ? r : at::Tensor(),
                                    .p_bar_dot = has_p_bar_dot ? s_bar_dot : at::Tensor(),
                                    .s_bar_dot = s_bar_dot,
                                    .columns = block.columns,
                                    .scale = scale_,
                                    .causal = causal(block)});
    return s_bar_dot;
  }

  /// [K, shape], in memory as projections lie: heads inside rows, so that the way back to them takes no copy.
  at::Tensor new_sum(const std::vector<std::int64_t>& shape, std::int64_t count, bool zero) const {
    std::vector<std::int64_t> sizes = shape;
    sizes.insert(sizes.begin(), count);
    const bool turns = shape.size() >= 3 && heads_inside_;
    if (turns) std::swap(sizes[sizes.size() - 2], sizes[sizes.size() - 3]);
    const at::Tensor sum = zero ? at::zeros(sizes, q_.options()) : at::empty(sizes, q_.options());
    return turns ? sum.transpose(-2, -3) : sum;
  }

  static void product_into(const at::Tensor& place, const at::Tensor& a, const at::Tensor& b) {
    Target target(place, false);
    target.product(a, b);
    target.close();
  }

  std::vector<std::int64_t> q_shape_, k_shape_, v_shape_;
  at::Tensor k_, v_;  // [batch, groups, rows, d]
  std::int64_t groups_;
  at::Tensor q_;       // [batch, groups, members, rows, d]
  bool heads_inside_;  // of rows, as projections make them
  bool is_causal_;
  double scale_ = 1;
  at::Tensor mask_;
  std::vector<Block> blocks_;
  bool packs_ = false;        // a block may be of several batches, which GPUs want to lie in one row
  bool shares_keys_ = false;  // blocks add to keys that others add to, or that none does
  bool keeps_ = false;
  std::int64_t p_bytes_ = 0;
  at::Tensor o_bar_, q_dot_, k_dot_, v_dot_;  // as q and k; dots stacked
  std::int64_t count_ = 1;
  std::vector<at::Tensor> p_, p_bar_, p_dot_;  // per block, where kept
};

}  // namespace

const RuleTable& attention_rules() {
  static const RuleTable rules = {
      {{"scaled_dot_product_attention"}, make_rule<Attention>},
  };
  return rules;
}

}  // namespace hesspect
