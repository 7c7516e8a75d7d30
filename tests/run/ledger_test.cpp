// The ledger: what it looks up, its prefix, its fields, and the messages that fill it.
#include "hesspect/run/ledger.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/core/overloaded.h"
#include "hesspect/core/probe_numbers.h"
#include "ledger_fields.h"
#include "messages.h"

namespace hesspect::ledger_test {
namespace {

std::uint64_t bits(double value) { return std::bit_cast<std::uint64_t>(value); }

LedgerState sample(std::int64_t products = 7) {
  LedgerState s;
  s.run_id = "5eed";
  s.config = "seed = 1\n";
  s.model = {{"modèle.pt2", "00ff"}};
  s.data = {{std::string("not UTF-8: \xff\xfe.h5"), "11"}, {"b.h5", "22"}};
  s.layout.row_groups = 16;
  s.layout.plan.groups = 2;
  s.layout.plan.data_ranks = 3;
  s.layout.plan.basis_dtype = ElementType::kBF16;
  s.layout.plan.basis_memory = BasisMemory::kHost;
  s.layout.plan.graph_budget_bytes = 123'456'789'012;
  s.layout.plan.bytes.basis = 40;
  s.layout.plan.bytes.basis_host = 512;
  s.layout.plan.run_s = 0.1;
  s.layout.world = 6;
  s.layout.threads = 4;
  s.layout.device = "cuda";
  FinishedProbe a;
  a.quadrature.probe = 4;
  a.quadrature.alpha = {1, -0.0, 5e-324};
  a.quadrature.beta = {0.1, std::numeric_limits<double>::max()};
  a.quadrature.beta_last = std::numeric_limits<double>::infinity();
  a.quadrature.ritz = {-1e-300, 0.3, 2.0 / 3};
  a.quadrature.weight = {0.25, 0.25, 0.5};
  a.quadrature.norm_sq = 194;
  a.quadrature.breakdown = true;
  a.quadrature.orthogonality_loss = std::nan("");
  EigenResult e;
  e.top = {{3.5, 1e-9, 2e-9, 1e-17, true, {1.0 / 3, -0.0}, 1.0 / 7},
           {2, -std::numeric_limits<double>::infinity(), std::nan("1"), 0.5, false}};
  e.bottom = {{-0.5, 1e-8, 1e-8, 1e-8, true}};
  e.steps = 42;
  e.captured = {1.0 / 3, 5e-324};
  e.crossed = {{0.1, std::nan("")}, {}};
  e.residual_products = 3;
  e.exhausted = true;
  a.eigenvalues = e;
  FinishedProbe b;
  b.quadrature.probe = 5;
  s.finished = {a, b};
  s.samples = {{9, -1.0 / 3, 5e-324, {}}, {std::int64_t{1} << 62, -0.0, std::nan("2"), {1.0 / 7}, {1.0 / 11, -0.0}}};
  s.deflated = {{4, 1.0 / 9, 0.7, {std::nan("")}}};
  s.deflation = DeflationState{17, 2.0 / 3, 1.0 / 13, {0.1, -std::numeric_limits<double>::infinity()}};
  s.trace = TraceEstimate{1.0 / 11, std::nan(""), 0.1, 0.95, 12, 30, 0.2, 6, "xtrace", false};
  s.eigenvalues = EigenResult{};
  s.eigenvalues->magnitude = {{-7, 0.1, 0.2, 0.3, true}};
  s.eigenvalues->thick_restarts = 2;
  s.eigenvalues->method = "block lanczos";
  s.eigenvalues->converged = true;
  FinishedBlock block{"layer1.0", {}, 0.25, {}};
  block.analysis.quadratures = {a.quadrature};
  block.analysis.eigenvalues = e;
  block.analysis.samples = {{4, 1.0 / 9, 0.7, {}}};
  block.analysis.captured = 1.0 / 7;
  block.analysis.captured_sq = 5e-324;
  block.analysis.deflated = 20;
  block.analysis.all_found = true;
  block.analysis.products = 33;
  block.changes = LossChanges{0.5,
                              1.0 / 3,
                              {1.0 / 7, -2},
                              {{0.1, {1e-9, std::nan("")}, 0.25, std::nan(""), {1.0 / 13, 3}, {5e-324, 1}}},
                              33,
                              {0.25, -1.0 / 17},
                              1.0 / 19};
  s.blocks = {block};
  s.symmetry_error = -std::nan("");
  s.curvature_scale = 1.0 / 3;
  s.products = products;
  s.product_s = 12.5;
  s.communication_s = 0.1;
  s.elapsed_s = 1e9 + 0.1;
  s.starts = 3;
  s.overwrite = true;
  return s;
}

TEST(LedgerState, ComesBackBitForBit) {
  const LedgerState s = sample();
  const LedgerState state = FieldReader::from<LedgerState>(FieldWriter::text(s), "state");
  const LedgerState* back = &state;
  EXPECT_EQ(back->run_id, s.run_id);
  EXPECT_EQ(back->config, s.config);
  const Plan& plan = back->layout.plan;
  EXPECT_EQ(plan.groups, 2);
  EXPECT_EQ(plan.data_ranks, 3);
  EXPECT_EQ(plan.basis_dtype, ElementType::kBF16);
  EXPECT_EQ(plan.basis_memory, BasisMemory::kHost);
  EXPECT_EQ(plan.graph_budget_bytes, 123'456'789'012);
  // A resumed run with its basis on the host said that it had none.
  EXPECT_EQ(plan.bytes.basis, 40);
  EXPECT_EQ(plan.bytes.basis_host, 512);
  EXPECT_EQ(plan.run_s, 0.1);
  EXPECT_EQ(back->layout.world, 6);
  EXPECT_EQ(back->layout.threads, 4);
  EXPECT_EQ(back->layout.device, "cuda");
  EXPECT_EQ(back->model[0].path, s.model[0].path);
  EXPECT_TRUE(back->weights.empty());
  ASSERT_TRUE(back->blocks.at(0).changes);
  EXPECT_EQ(back->blocks[0].changes->norm, 1.0 / 3);
  EXPECT_EQ(back->blocks[0].changes->at.at(0).change.front(), 1e-9);
  EXPECT_TRUE(std::isnan(back->blocks[0].changes->at[0].along));
  EXPECT_EQ(back->blocks[0].changes->at[0].part, (std::vector<double>{1.0 / 13, 3}));
  EXPECT_EQ(back->blocks[0].changes->at[0].nodes, (std::vector<double>{5e-324, 1}));
  EXPECT_EQ(back->blocks[0].changes->component, (std::vector<double>{0.25, -1.0 / 17}));
  EXPECT_EQ(back->blocks[0].changes->largest_curvature, 1.0 / 19);
  ASSERT_EQ(back->data.size(), 2u);
  EXPECT_EQ(back->data[0].path, s.data[0].path);
  EXPECT_EQ(back->data[1].sha256, "22");
  ASSERT_EQ(back->finished.size(), 2u);
  const ProbeQuadrature &q = back->finished[0].quadrature, &expected = s.finished[0].quadrature;
  EXPECT_EQ(q.probe, 4);
  const auto same_bits = [](const std::vector<double>& x, const std::vector<double>& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](double u, double v) { return bits(u) == bits(v); });
  };
  EXPECT_TRUE(same_bits(q.alpha, expected.alpha) && same_bits(q.beta, expected.beta));
  EXPECT_TRUE(same_bits(q.ritz, expected.ritz) && same_bits(q.weight, expected.weight));
  EXPECT_EQ(q.beta_last, expected.beta_last);
  EXPECT_EQ(q.norm_sq, 194);
  EXPECT_TRUE(q.breakdown);
  EXPECT_EQ(bits(q.orthogonality_loss), bits(expected.orthogonality_loss));
  const EigenResult& e = back->finished[0].eigenvalues.value();
  ASSERT_EQ(e.top.size(), 2u);
  EXPECT_EQ(e.top[1].residual, -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(e.top[0].converged && !e.top[1].converged && !e.converged && e.exhausted);
  EXPECT_EQ(e.bottom.at(0).value, -0.5);
  EXPECT_EQ(e.steps, 42);
  EXPECT_EQ(bits(e.top[1].true_residual), bits(std::nan("1")));
  EXPECT_EQ(e.top[0].error, 1e-17);
  EXPECT_EQ(e.residual_products, 3);
  EXPECT_EQ(e.method, "lanczos");
  EXPECT_TRUE(e.magnitude.empty());
  EXPECT_FALSE(back->finished[1].eigenvalues.has_value());
  EXPECT_TRUE(back->finished[1].quadrature.alpha.empty());
  EXPECT_EQ(bits(back->symmetry_error), bits(s.symmetry_error));
  EXPECT_EQ(back->curvature_scale, s.curvature_scale);
  EXPECT_EQ(back->products, 7);
  EXPECT_EQ(back->product_s, 12.5);
  EXPECT_EQ(back->communication_s, 0.1);
  EXPECT_EQ(back->elapsed_s, s.elapsed_s);
  EXPECT_EQ(back->starts, 3);
  EXPECT_TRUE(back->overwrite);
}

TEST(LedgerState, WhatTheTraceNeedsComesBackBitForBit) {
  const LedgerState s = sample();
  const LedgerState state = FieldReader::from<LedgerState>(FieldWriter::text(s), "state");
  const LedgerState* back = &state;
  ASSERT_EQ(back->samples.size(), 2u);
  EXPECT_EQ(back->samples[0].probe, 9);
  EXPECT_EQ(back->samples[0].quadratic_form, -1.0 / 3);
  EXPECT_EQ(back->samples[0].product_norm_sq, 5e-324);
  EXPECT_TRUE(back->samples[0].layers.empty());
  EXPECT_EQ(back->samples[1].groups, s.samples[1].groups);
  EXPECT_EQ(back->finished[0].eigenvalues->top[0].groups, s.finished[0].eigenvalues->top[0].groups);
  EXPECT_EQ(back->finished[0].eigenvalues->top[0].data_bias, 1.0 / 7);
  EXPECT_EQ(back->finished[0].eigenvalues->captured, s.finished[0].eigenvalues->captured);
  EXPECT_EQ(bits(back->finished[0].eigenvalues->crossed[0][1]), bits(std::nan("")));
  EXPECT_EQ(back->layout.row_groups, 16);
  EXPECT_EQ(back->samples[1].probe, std::int64_t{1} << 62);
  EXPECT_EQ(bits(back->samples[1].quadratic_form), bits(-0.0));
  EXPECT_EQ(bits(back->samples[1].product_norm_sq), bits(std::nan("2")));
  EXPECT_EQ(back->samples[1].layers, std::vector<double>{1.0 / 7});
  ASSERT_EQ(back->deflated.size(), 1u);
  EXPECT_EQ(back->deflated[0].quadratic_form, 1.0 / 9);
  EXPECT_EQ(back->deflated[0].product_norm_sq, 0.7);
  EXPECT_EQ(bits(back->deflated[0].layers.at(0)), bits(std::nan("")));
  ASSERT_TRUE(back->deflation.has_value());
  EXPECT_EQ(back->deflation->rank, 17);
  EXPECT_EQ(back->deflation->captured, 2.0 / 3);
  EXPECT_EQ(back->deflation->layers, s.deflation->layers);
  ASSERT_TRUE(back->trace.has_value());
  const TraceEstimate& t = *back->trace;
  EXPECT_EQ(t.value, 1.0 / 11);
  EXPECT_EQ(bits(t.standard_error), bits(std::nan("")));
  EXPECT_EQ(t.half_width, 0.1);
  EXPECT_EQ(t.confidence, 0.95);
  EXPECT_EQ((std::vector<std::int64_t>{t.samples, t.products, t.deflated}), (std::vector<std::int64_t>{12, 30, 6}));
  EXPECT_EQ(t.captured, 0.2);
  EXPECT_EQ(t.method, "xtrace");
  EXPECT_FALSE(t.converged);
  ASSERT_TRUE(back->eigenvalues.has_value());
  EXPECT_EQ(back->eigenvalues->magnitude.at(0).value, -7);
  EXPECT_EQ(back->eigenvalues->magnitude.at(0).true_residual, 0.2);
  EXPECT_EQ(back->eigenvalues->thick_restarts, 2);
  EXPECT_EQ(back->eigenvalues->method, "block lanczos");
  EXPECT_TRUE(back->eigenvalues->converged);

  // A run that has none of it yet.
  const auto empty = FieldReader::from<LedgerState>(FieldWriter::text(LedgerState{}), "state");
  EXPECT_TRUE(empty.samples.empty() && empty.deflated.empty());
  EXPECT_FALSE(empty.deflation.has_value() || empty.trace.has_value() || empty.eigenvalues.has_value());
}

template <class E>
std::string message(const std::function<void()>& act) {
  try {
    act();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

TEST(Messages, ComeBackBitForBit) {
  const LedgerState s = sample();
  const auto back = [](Report report) {
    return message_from(to_text(Message{2, Tally{3, 0.5, 0.25}, std::move(report)}));
  };
  const Message finished = back(ProbeFinished{s.finished[0]});
  EXPECT_EQ(finished.group, 2);
  EXPECT_EQ(finished.tally->products, 3);
  const FinishedProbe& probe = std::get<ProbeFinished>(finished.report).probe;
  EXPECT_EQ(probe.quadrature.ritz, s.finished[0].quadrature.ritz);
  EXPECT_EQ(bits(probe.eigenvalues.value().top.at(1).true_residual), bits(std::nan("1")));
  const auto sampled = std::get<Sampled>(back(Sampled{s.samples[1]}).report).sample;
  EXPECT_EQ(sampled.probe, std::int64_t{1} << 62);
  EXPECT_EQ(bits(sampled.product_norm_sq), bits(std::nan("2")));
  EXPECT_EQ(std::get<BasisReady>(back(BasisReady{*s.deflation}).report).deflation.layers, s.deflation->layers);
  EXPECT_EQ(std::get<TraceEstimated>(back(TraceEstimated{*s.trace}).report).estimate.method, "xtrace");
  EXPECT_EQ(std::get<EigenSolved>(back(EigenSolved{*s.eigenvalues}).report).result.magnitude.at(0).error, 0.3);
  EXPECT_EQ(std::get<GroupFailed>(back(GroupFailed{5, "no \xff memory"}).report).message, "no \xff memory");
  EXPECT_TRUE(std::holds_alternative<Stopping>(back(Stopping{}).report));

  const Reply reply = reply_from(to_text(Reply{true, SampleTrace{{7, 8}}}));
  EXPECT_TRUE(reply.stop);
  EXPECT_EQ(std::get<SampleTrace>(reply.task).probes, (std::vector<std::int64_t>{7, 8}));
  EXPECT_EQ(std::get<CorrectSamples>(reply_from(to_text(Reply{false, CorrectSamples{s.samples}})).task).samples.size(),
            2U);
}

TEST(Messages, AnUnknownOneIsAnError) {
  std::string text = to_text(Message{0, {}, Stopping{}});
  text.replace(text.find("stopping"), 8, "sleeping");
  EXPECT_NE(message<InputError>([&] { (void)message_from(text); }).find("is not one of those known"),
            std::string::npos);
  EXPECT_THROW((void)reply_from(R"({"stop": false, "task": ["juggle", {}]})"), InputError);
  EXPECT_EQ(message<InputError>([] { (void)reply_from("{"); }), "reply is not JSON");
  EXPECT_EQ(message<InputError>([] { (void)reply_from(R"({"stop": false, "task": ["sample", {}]})"); }),
            "reply.task[1].probes is missing");
}

Goals trace_goals(TraceMethod method, std::int64_t runs) {
  Goals goals;
  goals.n = 100;
  goals.runs = runs;
  goals.trace = TraceGoal{};
  goals.trace->method = method;
  return goals;
}

TEST(SampleOrder, CountsWhatComesForNothingFirst) {
  const SampleOrder deflated(trace_goals(TraceMethod::kDeflated, 3));
  EXPECT_EQ(deflated.free(), 4);
  const std::int64_t expected[] = {trace_probe(0), trace_probe(1), 1, 2, trace_probe(2), trace_probe(3)};
  for (std::int64_t i = 0; i < 6; ++i) EXPECT_EQ(deflated.probe(i), expected[i]) << i;
  const SampleOrder plain(trace_goals(TraceMethod::kHutchinson, 1));
  EXPECT_EQ(plain.probe(2), 0);
  EXPECT_EQ(plain.probe(3), trace_probe(2));
  Goals diagonal = trace_goals(TraceMethod::kDeflated, 3);
  diagonal.trace->diagonal_file = "d.h5";
  EXPECT_EQ(SampleOrder(diagonal).free(), 0);
  EXPECT_EQ(SampleOrder(diagonal).probe(0), trace_probe(2));
}

TEST(Ledger, ThePrefixGrowsWithoutGaps) {
  Ledger ledger({}, trace_goals(TraceMethod::kDeflated, 1), 2);
  for (const std::int64_t i : {0, 1, 3}) ledger.add(TraceSample{trace_probe(i), 1, 1, {}});
  for (const std::int64_t i : {0, 3}) ledger.add(DeflatedSample{trace_probe(i), 0.5 + static_cast<double>(i), 1, {}});
  EXPECT_TRUE(ledger.prefix().samples.empty());  // none counts before the space is known
  ledger.set_deflation({10, 2.5, 0, {}});
  ASSERT_EQ(ledger.prefix().samples.size(), 1U);
  ledger.add(DeflatedSample{trace_probe(1), 0.25, 1, {}});
  ASSERT_EQ(ledger.prefix().samples.size(), 2U);
  ledger.add(DeflatedSample{trace_probe(2), 0.125, 1, {}});
  ASSERT_EQ(ledger.prefix().samples.size(), 4U);
  EXPECT_EQ(ledger.prefix().samples[3].quadratic_form, 3.5);
  // Another space makes all corrections void.
  ledger.set_deflation({11, 2.5, 0, {}});
  EXPECT_TRUE(ledger.prefix().samples.empty());
  EXPECT_EQ(ledger.prefix().generation, 1);
  EXPECT_EQ(ledger.deflated(trace_probe(0)), nullptr);
  EXPECT_NE(ledger.sample(trace_probe(0)), nullptr);
}

TEST(Ledger, ProductsAreThoseOfAllStartsAndGroups) {
  LedgerState before = sample(7);
  Ledger ledger(before, trace_goals(TraceMethod::kDeflated, 1), 2);
  ledger.set_tally(0, {5, 1, 0.5});
  ledger.set_tally(1, {6, 1, 0.5});
  ledger.set_tally(1, {8, 2, 0.5});
  EXPECT_EQ(ledger.products(), 20);
  const LedgerState now = ledger.state(3);
  EXPECT_EQ(now.products, 20);
  EXPECT_EQ(now.product_s, 15.5);
  EXPECT_EQ(now.elapsed_s, before.elapsed_s + 3);
}

}  // namespace
}  // namespace hesspect::ledger_test
