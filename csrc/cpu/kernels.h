// The ops of one instruction set: the build defines PYGAN_ISA (portable, avx2, avx512) and its compiler flags.
#pragma once

#include "backend.h"

namespace pygan::cpu::PYGAN_ISA {

void linear_act_forward(const LinearActForward& op);
void linear_act_backward(const LinearActBackward& op);
void linear_act_grad(const LinearActBackward& op, void* g);
void maxout_forward(const MaxoutForward& op);
void maxout_backward(const MaxoutBackward& op);
void linear_batch_norm_act_forward(const LinearBatchNormForward& op);
void linear_batch_norm_act_backward(const LinearBatchNormBackward& op);
void dropout_forward(const DropoutForward& op);
void gan_loss_forward(const GanLossForward& op);
void gan_loss_backward(const GanLossBackward& op);
void head_loss_forward(const HeadLossForward& op);
void head_loss_backward(const HeadLossBackward& op);
void momentum_update(const MomentumUpdate& op);
void adam_update(const AdamUpdate& op);
void noise(const Noise& op);
void minibatch_indices(const MinibatchIndices& op);
void parzen_log_likelihood(const ParzenLogLikelihood& op);
Engine* make_engine(const Training& training);

}  // namespace pygan::cpu::PYGAN_ISA
