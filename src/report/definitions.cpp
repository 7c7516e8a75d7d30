// What each figure is and where it is from. Whoever changes a sentence here reads the source first.
#include <algorithm>
#include <stdexcept>

#include "hesspect/report/figures.h"

namespace hesspect {
namespace {

const std::string kCurvatureUnit = "loss/parameter²";

const std::string kReparametrised =
    "Rescaling weights between the layers of a rectifier network changes it at will while the function stays the same "
    "(Dinh et al. 2017, arXiv:1703.04933). ";

const std::string kStepAgainst =
    "Full-batch training goes on at and above it without diverging, since the loss is no quadratic (the edge of "
    "stability: Cohen et al. 2021). ";

std::vector<Definition> made() {
  return {
      {"lambda_1", "Largest eigenvalue", "λ₁", kCurvatureUnit,
       "The largest second derivative of the loss along any direction of unit length in parameter space.",
       "Lanczos: Golub & Van Loan, Matrix Computations 4e, §10.1. As a measure of sharpness: Keskar et al. 2017, "
       "arXiv:1609.04836, relate theirs to it",
       kReparametrised +
           "Batch size and learning rate move it without moving the test error (Kaur, Cohen & Lipton 2022, "
           "arXiv:2206.10654). Over many settings sharpness goes with the learning rate rather than with "
           "generalisation, "
           "and at times sharper models did better out of distribution (Andriushchenko et al. 2023, "
           "arXiv:2302.07011)."},
      {"lambda_ratio", "Largest over fifth eigenvalue", "λ₁/λ₅", "",
       "How far the largest eigenvalue stands above the fifth: near 1 where the sharpest directions are alike.",
       "Foret et al. 2021, arXiv:2010.01412, report it beside λ₁; Jastrzębski et al. 2020, arXiv:2002.09572",
       "A ratio does not change with the loss's scale, but with the parametrisation it does. The number 5 is a habit: "
       "with C classes some C − 1 or C eigenvalues stand out (Sagun et al. 2018, arXiv:1706.04454), and the fifth is "
       "one "
       "of these where C is above 5."},
      {"lambda_min", "Smallest eigenvalue", "λₙ", kCurvatureUnit,
       "The least second derivative along any direction. Below zero: the model is at no minimum of this loss on these "
       "data, for the loss bends down along its eigenvector.",
       "Alain, Le Roux & Manzagol 2019, arXiv:1902.02366",
       "Some small negative eigenvalues are what most trained networks have (Sagun et al. 2018, arXiv:1706.04454). Of "
       "a "
       "Gauss-Newton or Fisher matrix they are rounding. On other rows than those of the training it says nothing of "
       "convergence."},
      {"step_gd", "Largest stable step, gradient descent", "2/λ₁", "parameter²/loss",
       "Gradient descent on all these data with a larger step grows without bound along the first eigenvector, as far "
       "as "
       "the loss is quadratic.",
       "Cohen et al. 2021, arXiv:2103.00065",
       kStepAgainst +
           "With mini-batches the limit lies lower and depends on the batch (Wu, Ma & E 2018, NeurIPS 31; Andreyev & "
           "Beneventano 2024, arXiv:2412.20553)."},
      {"step_momentum", "Largest stable step, momentum", "2(1+β)/λ₁", "parameter²/loss",
       "The same for heavy-ball momentum without dampening: v ← βv + ∇L, θ ← θ − ηv.",
       "Cohen et al. 2021, arXiv:2103.00065, appendix on momentum",
       kStepAgainst +
           "With small batches momentum lowers the limit: training settled at 2(1−β)/η rather than 2(1+β)/η (Andreyev "
           "2026, arXiv:2604.14108)."},
      {"step_nesterov", "Largest stable step, Nesterov's momentum", "2(1+β)/((1+2β)λ₁)", "parameter²/loss",
       "The same for Nesterov's momentum.", "Cohen et al. 2021, arXiv:2103.00065, appendix on momentum", kStepAgainst},
      {"trace", "Trace", "tr H", kCurvatureUnit,
       "The sum of all eigenvalues; σ²/2 times it is what the loss rises by in the mean under Gaussian noise of "
       "variance "
       "σ² on each parameter, to second order.",
       "Hutchinson 1990; for networks: Yao et al. 2020, arXiv:1912.07145",
       kReparametrised + "Negative eigenvalues cancel positive ones in it."},
      {"mean_eigenvalue", "Mean eigenvalue", "tr H / n", kCurvatureUnit, "The trace over the number of parameters.",
       "Dong et al. 2020, arXiv:1911.03852 (HAWQ-V2: the average Hessian trace, by layer)",
       kReparametrised + "Parameters that nothing depends on lower it: rows of an embedding that the data never use."},
      {"frobenius", "Frobenius norm", "‖H‖_F", kCurvatureUnit, "√Σλ²: the length of the spectrum.",
       "From the density's second moment; Golub & Meurant 2010", kReparametrised + "Outliers make nearly all of it."},
      {"effective_dimension", "Effective dimension", "Σ λ/(λ+c)", "",
       "How many directions the data determine more than a prior of precision c: an eigenvalue far above c counts as "
       "1, "
       "far below as 0. c is in units of the curvature: where the loss is a mean over N terms it is the prior's "
       "precision "
       "over N, or the weight decay.",
       "MacKay 1992, Neural Computation 4 (γ); Maddox, Benton & Wilson 2020, arXiv:2003.02139",
       "It is a different number for each c, and both sources have a matrix without negative eigenvalues: here those "
       "count as zero. An isotropic prior ties it to the parametrisation, as λ₁ is (Dinh et al. 2017)."},
      {"negative_mass", "Negative mass", "#{λ<−f}/n", "",
       "The share of the eigenvalues below the noise floor f, under which an eigenvalue can't be told from zero.",
       "Ghorbani, Krishnan & Xiao 2019, arXiv:1901.10159; Alain, Le Roux & Manzagol 2019, arXiv:1902.02366",
       "It counts many eigenvalues of next to no size: a shallow bulk on both sides of zero has nearly half its mass "
       "below it. See the negative share of Σ|λ| beside it."},
      {"negative_share", "Negative share of Σ|λ|", "Σ₋|λ|/Σ|λ|", "",
       "How much of the spectrum's size lies below zero; 0 of a positive semi-definite matrix, ½ where the trace is "
       "zero.",
       "From the density; the trace is (1 − 2 × this) Σ|λ|",
       "A saddle and a minimum with a noisy flat part can have the same share: see λₙ."},
      {"outliers", "Outliers", "k", "",
       "How many eigenvalues stand above the bulk: k is where λₖ/λₖ₊₁ is largest among the leading ones, if that "
       "is "
       "1.5 or more. A rule, not an estimate: it has no interval.",
       "Sagun et al. 2018, arXiv:1706.04454; Papyan 2019, arXiv:1901.08244",
       "There may be several gaps, one within the other (Papyan 2019), and with batch norm hardly any (Ghorbani et al. "
       "2019, arXiv:1901.10159). Where k is about the number of classes it tells of the task, not of the model's "
       "quality."},
      {"bulk_edge", "Bulk edge", "λₖ₊₁", kCurvatureUnit, "The largest eigenvalue that is no outlier.", "As outliers",
       "As outliers."},
      {"bulk_exponent", "Bulk exponent", "s", "",
       "Least-squares slope of log λₖ against log k, from the bulk's edge down to a thousandth of it or to a hundred "
       "noise floors: λₖ ∝ k⁻ˢ. The interval holds the slopes of all curves within the density's band.",
       "Xie et al. 2022, arXiv:2201.13011 (s near 1 in trained networks)",
       "A straight line on two log axes is no proof of a power law (Clauset, Shalizi & Newman 2009, arXiv:0706.1062): "
       "see "
       "the misfit."},
      {"sam_rise", "Rise within a ball", "max ΔL, ‖ε‖=ρ", "loss",
       "How much the loss rises by a step of length ρ, the larger of those along the gradient and along the leading "
       "eigenvectors, both ways: a lower bound of the largest rise within the ball.",
       "Foret et al. 2021, arXiv:2010.01412 (SAM, whose own step is the one along the gradient)",
       "Measured, so it holds beyond the quadratic; but ρ is a length in parameters, which rescaling moves as it moves "
       "λ₁. Small rises went with better and with worse test errors (Andriushchenko et al. 2023, arXiv:2302.07011)."},
      {"adaptive_rise", "Rise within an adaptive ball", "max ΔL, ‖ε/|θ|‖=ρ", "loss",
       "The same for steps in shares of each parameter's own size, which rescaling of weights leaves as it is.",
       "Kwon et al. 2021, arXiv:2102.11600",
       "Of all such measures that were tried on Transformers and fine-tuned models none went well with generalisation, "
       "and "
       "some went against it (Andriushchenko et al. 2023, arXiv:2302.07011)."},
      {"step_checked", "Largest stable step, checked", "η", "parameter²/loss",
       "The largest stable step by λ₁, with what real steps 5 % below and above it do: a distance along the first "
       "eigenvector shrinks below and grows above where the quadratic model holds.",
       "Cohen et al. 2021, arXiv:2103.00065", kStepAgainst},
      {"adam_lambda_1", "Largest eigenvalue as Adam sees it", "λ₁(D⁻¹H)", "1/parameter",
       "The largest eigenvalue of D^-1/2 H D^-1/2, D = √v̂ + ε with the second moments of a checkpoint, corrected for "
       "their bias, held fixed.",
       "Cohen et al. 2022, arXiv:2207.14484 (preconditioned sharpness)",
       "The moments are those of the training's own batches at its own time, and move with the parameters: at the edge "
       "Adam goes on into sharper regions by adapting them (Cohen et al. 2022). Between checkpoints with other moments "
       "it compares optimisers, not minima."},
      {"adam_rate", "Largest stable learning rate, Adam", "2(1+β₁)/((1−β₁)λ₁)", "parameter",
       "Adam with D held fixed and a larger learning rate grows without bound along that eigenvector, as far as the "
       "loss "
       "is quadratic; with β₁ = 0.9 it is 38 over the eigenvalue. Checked by steps of real gradients where the note "
       "says "
       "so.",
       "Cohen et al. 2022, arXiv:2207.14484",
       "Full-batch Adam trains at about this rate's edge without diverging, since D adapts (Cohen et al. 2022). With "
       "mini-batches the limit lies elsewhere. Weight decay and the bias of the first moment in the first steps are "
       "left "
       "out."},
      {"critical_sharpness", "Critical sharpness", "2/η_c", kCurvatureUnit,
       "Two over the smallest step against the gradient that raises the loss: a sharpness by forward passes alone.",
       "Kalra et al. 2026, arXiv:2601.16979",
       "It mixes the curvatures that the gradient has a part of, at the distance of that step: at the edge of "
       "stability "
       "it is near λ₁, elsewhere below."},
      {"basin_radius", "Radius of the basin", "r/‖θ‖", "",
       "How far along random directions the loss stays within a tolerance, as a share of the parameters' norm: the "
       "median "
       "over directions.",
       "After Chen et al. 2025, arXiv:2505.17646, who take a benchmark's score",
       "In many dimensions a random direction meets the mean curvature, tr H/n, and next to nothing of the sharp "
       "ones."},
      {"fisher_rao", "Squared Fisher-Rao norm", "θᵀFθ", "loss",
       "The parameters' squared length in the Fisher matrix: of the model's own distribution (F), and with the data's "
       "targets (C), which is how the source defines it. Exact for these rows, but for rounding.",
       "Liang et al. 2019, arXiv:1711.01530",
       "Rescaling weights between the layers of a rectifier network leaves it as it is, but it falls with the loss: a "
       "model that fits all targets with confidence, random ones too, has a small one. F and C differ away from a "
       "perfect fit (Kunstner, Balles & Hennig 2019, arXiv:1905.12558)."},
      {"fisher_trace", "Trace of the Fisher matrix", "tr F", kCurvatureUnit,
       "The sum of the eigenvalues of the Fisher matrix of the model's own distribution, a term of the loss as its "
       "unit.",
       "Random vectors, as for the trace; Martens 2020, arXiv:1412.1193", kReparametrised},
      {"empirical_fisher_trace", "Trace of the empirical Fisher matrix", "tr C", kCurvatureUnit,
       "The mean squared norm of the terms' gradients at the data's targets, each about zero and not about their mean.",
       "The same random vectors; Thomas et al. 2020, arXiv:1906.07774",
       "It is called a Fisher matrix and is none away from a perfect fit (Kunstner, Balles & Hennig 2019, "
       "arXiv:1905.12558). " +
           kReparametrised},
      {"tic", "Takeuchi's criterion, by traces", "tr C / tr F", "",
       "Stands for tr(H⁻¹C), which over the number of rows is what Takeuchi's criterion adds to the training loss. "
       "Once "
       "with the Fisher matrix, once with the run's own below the line. 1 where the model's distribution is the "
       "data's.",
       "Thomas et al. 2020, arXiv:1906.07774, in whose experiments the criterion and such approximations went with the "
       "generalisation gap",
       "A ratio of traces is not the trace of a ratio: for C = F it is 1 whatever the number of parameters, where "
       "tr(F⁻¹C) "
       "is that number. Away from the regime of linearised networks the criterion's correlation with the gap was found "
       "to "
       "vanish (Naganuma et al. 2026, arXiv:2602.23219). C is of these rows: rows of the training say other things "
       "than "
       "held-out ones."},
      {"relative_flatness", "Relative flatness", "κ", "loss",
       "Σ ⟨w_s, w_s'⟩ Tr(H_{s,s'}) over pairs of rows of a layer's weights, H_{s,s'} the block of the Hessian between "
       "them: "
       "of the last layer, unless another one is named. From random vectors; with cross entropy it is in closed form "
       "the "
       "mean of ‖φ‖² (Σ p_s ‖w_s‖² − ‖Σ p_s w_s‖²), φ the layer's input.",
       "Petzka et al. 2021, arXiv:2001.00939; of the penultimate layer's features in closed form: Walter et al. 2025, "
       "arXiv:2510.14231",
       "Scaling the layer and its input against each other leaves it as it is, but confidence lowers it: adversarial "
       "examples lie in large flat regions where the model is sure and wrong (Walter et al. 2025). The theory asks for "
       "features of which the data are representative, which is not checked here."},
      {"loss_gap", "Loss gap", "L_other − L_own", "loss",
       "Mean loss on the other data less that on the run's own. The interval is Student's over rows, with a correction "
       "for skewed ones (Hall 1992), drawn "
       "independently.",
       "The definition of the generalisation gap, where the own data are those of the training and the others were "
       "never "
       "used",
       "It is a gap of generalisation only then, and of the same distribution only where the files are. Model and "
       "other data "
       "may have been chosen together: that is not in the interval."},
      {"data_loss", "Mean loss on a data file", "L", "loss",
       "The run's loss, its mean over terms, on the own and on the other data. Student's interval over rows.",
       "As the gap", "As the gap."},
      {"accuracy", "Accuracy", "#{ŷ = y}/N", "",
       "The share of terms whose most likely class is the target; of binary targets, those on the right side of ½. "
       "Exact "
       "binomial interval where a row is one term, else Student's over rows.",
       "Clopper & Pearson 1934, Biometrika 26",
       "It says nothing of how sure the model is, nor of how the classes weigh."},
      {"nll", "Negative log-likelihood", "−log p(y)", "nat",
       "The mean over terms, without weights or smoothing: the loss itself where it has neither. Student's interval "
       "over "
       "rows.",
       "Guo et al. 2017, arXiv:1706.04599",
       "A few sure and wrong terms make most of it; a change of temperature alone moves it."},
      {"ece", "Expected calibration error", "ECE", "",
       "Σ over 15 bins of equal width, (m − 1)/15 to m/15, of |share right − mean confidence|, each bin by its share "
       "of "
       "terms. Confidence is the largest class's probability, of binary targets that of the likelier of both. The "
       "interval "
       "holds for all bins' gaps together, by a bootstrap over rows, and reaches to 0 where a calibrated model would "
       "show as "
       "much.",
       "Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017, arXiv:1706.04599",
       "The estimate is biased, upwards most of all for calibrated models and few rows: what such a model of these "
       "confidences shows stands beside it. It depends on number and kind of bins, and bins of equal mass are less "
       "biased "
       "(Roelofs et al. 2022, arXiv:2012.08668). It looks at the largest class alone."},
      {"brier", "Brier score", "BS", "",
       "The mean over terms of Σ (p_c − 1[y = c])² over classes; of binary targets (p − y)², half of that. Student's "
       "interval over rows.",
       "Brier 1950, Monthly Weather Review 78",
       "It mixes calibration and discrimination: two models with the same score may differ in both."},
      {"input_curvature", "Curvature in the inputs", "|λ(∇²ₓℓ)|", "loss/input²",
       "The eigenvalue of largest magnitude of a row's loss with respect to its own inputs, as a quantile over rows.",
       "Moosavi-Dezfooli et al. 2019, arXiv:1811.09716 (CURE)",
       "A flat loss at the inputs need not be robust: gradients can be masked (Athalye, Carlini & Wagner 2018, "
       "arXiv:1802.00420)."},
      {"input_change", "Change of the input gradient", "‖∇ℓ(x+hz) − ∇ℓ(x)‖²", "(loss/input)²",
       "How much a row's gradient with respect to its inputs changes by a step of length h, as a quantile over rows.",
       "Moosavi-Dezfooli et al. 2019, arXiv:1811.09716 (CURE's regulariser)", "As the curvature in the inputs."},
      {"feature_largest", "Largest eigenvalue of a feature", "λ₁(H_gg)", kCurvatureUnit,
       "The largest eigenvalue of the diagonal block of a feature's parameters that the data use: an embedding table, "
       "rows of one, columns that multiply an input.",
       "Helen: Chen et al. 2024, arXiv:2403.00798, who find it rising with a feature's frequency",
       "Of a mean loss the block of an embedding row is its share of the data times the mean curvature in the rows "
       "that "
       "touch it: it rises with frequency also where no such row is sharper than another (see its correlation per "
       "touch). " +
           kReparametrised},
      {"feature_mean", "Trace per parameter in use", "tr H_gg/n_g", kCurvatureUnit,
       "The mean of the diagonal over the feature's parameters that the data use.",
       "Samples as for the trace; parameters that no row of the data uses have no curvature, and don't count",
       "As the largest eigenvalue of a feature."},
      {"feature_change", "Change of the loss by a feature", "E ΔL, ‖s‖=ρ‖θ_g‖", "loss",
       "How much the loss changes by a step within the feature of a length relative to its norm, mean over all "
       "directions; measured by pairs of opposite steps, so that the gradient's part cancels. The interval is "
       "Student's, "
       "wider on the side to which the draws are skewed.",
       "Forward passes; the quadratic model's part from the trace, and what steps along the first eigenvector do from "
       "a quadrature rule, where that takes out variance (control variates: Owen 2013, Monte Carlo theory, methods and "
       "examples, §8.9)",
       "Relative to the norm it is the scale of the weights as much as the curvature that is seen: weight decay "
       "shrinks "
       "rare rows. Random directions meet the mean curvature, not the largest. What only a rare direction shows, and "
       "more "
       "steeply than by the fourth power, few of them miss: the interval is then too narrow. It says what the trained "
       "loss does, not how the feature will do on other data."},
      {"feature_correlation", "Rank correlation over features", "Spearman ρ", "",
       "How far two figures order the features alike, by ranks; partial: with what the ranks of frequency explain "
       "taken "
       "out of both.",
       "Interval by Fisher's z with the variance of Bonett & Wright 2000, Psychometrika 65",
       "Features are no independent draws: they share data and the network behind them, so that the interval is too "
       "narrow for what another training would give. Frequency per row and curvature go together by definition of the "
       "mean loss."},
      {"off_block_share", "Share off the blocks", "‖H−D‖²/‖H‖²", "",
       "How much of the squared Frobenius norm lies outside the diagonal blocks D that were asked for: 0 where these "
       "are "
       "all there is.",
       "Samples of products; the picture of a block-diagonal Hessian: Zhang et al. 2024, arXiv:2402.16788",
       "A Frobenius norm is made by the largest entries: a small share does not say that small eigenvalues are those "
       "of "
       "the blocks."},
      {"js_distance", "Distance between blocks' spectra", "mean JS", "",
       "The Jensen-Shannon distance between the densities of two blocks, from 0 (alike) to 1 (nothing in common), mean "
       "over pairs.",
       "Zhang et al. 2024, arXiv:2402.16788, who find it large in Transformers and small in CNNs",
       "It depends on the kernel's width. That it explains why Adam beats gradient descent is an argument from "
       "examples. Blocks of other sizes have other resolutions."},
      {"layer_trace", "Trace of a parameter tensor", "tr H_l", kCurvatureUnit,
       "The sum of the diagonal over one parameter tensor: all of these sum to the trace.",
       "Dong et al. 2020, arXiv:1911.03852; samples as for the trace",
       kReparametrised + "Between layers that is just what such a rescaling moves: traces of layers are not comparable "
                         "without the size of their weights."},
      {"distance", "Distance from the initial weights", "‖θ − θ₀‖", "parameter",
       "How far training has moved the parameters; rows of look-up tables that the data don't use are left out, unless "
       "--rows-in-use is off.",
       "As a measure of capacity: Nagarajan & Kolter 2019, arXiv:1901.01672",
       "It grows with the number of steps and with the learning rate, and scaling one layer up and the next one down "
       "changes it while the function stays the same (Dinh et al. 2017, arXiv:1703.04933)."},
      {"weighted_trace", "Traces weighted by distance", "Σ tr(H_l) ‖θ_l − θ₀_l‖²", "loss",
       "The trace of each parameter tensor's diagonal block times the squared distance that training has moved the "
       "tensor, summed over tensors.",
       "After Ju, Li & Zhang 2022, arXiv:2206.02659, who weigh each layer's Hessian by the step from the initial "
       "weights, along that step. Here the trace stands for it: every direction counts alike",
       "Theirs went with the gap of fine-tuned models; it is part of a bound, not an estimate of the gap, and this is "
       "not it. A step along flat directions alone has the same weighted trace as one along the sharpest. The distance "
       "grows with every step of training."},
      {"layer_weighted_trace", "Trace of a parameter tensor, weighted by distance", "tr(H_l) ‖θ_l − θ₀_l‖²", "loss",
       "One tensor's term of the sum: where the model has both moved and is curved.", "As the sum", "As the sum."},
  };
}

}  // namespace

const std::vector<Definition>& definitions() {
  static const std::vector<Definition> all = made();
  return all;
}

const Definition& definition_of(const std::string& key) {
  const auto found = std::ranges::find(definitions(), key, &Definition::key);
  if (found == definitions().end()) throw std::out_of_range("there is no figure " + key);
  return *found;
}

}  // namespace hesspect
