void run_task(const Call& call, const Sizes& sizes, const Work& work, const Packed& packed, Team& team, int64_t unit, int64_t head, int64_t group, int64_t tile) {
    const Dims dims(call, sizes, 0);
    const int64_t first_sequence = unit * call.rows;
    const int count = int(call.sequence_count - first_sequence < call.rows ? call.sequence_count - first_sequence : call.rows);
    int rows = count;
    const int64_t steps = call.sequences[first_sequence].steps;

    // What this member of the team computes.
    const Slice own_D = team.slice(dims.D_row);

    // The caller's tensors.
    const Array x_0_tensor(call.tensors[0], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array x_1_tensor(call.tensors[1], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array x_2_tensor(call.tensors[2], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array x_3_tensor(call.tensors[3], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array out_tensor(call.tensors[4], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array b_0_tensor(call.tensors[9], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array b_1_tensor(call.tensors[10], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array b_2_tensor(call.tensors[11], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array b_3_tensor(call.tensors[12], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array h_first(call.tensors[13], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array h_last(call.tensors[14], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array c_first(call.tensors[15], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const Array c_last(call.tensors[16], head, group, true, {{0, dims.D, 0}}, dims.D_row, own_D);
    const real* b_0 = b_0_tensor.view(work.b_0, 0, 0);
    const real* b_1 = b_1_tensor.view(work.b_1, 0, 0);
    const real* b_2 = b_2_tensor.view(work.b_2, 0, 0);
    const real* b_3 = b_3_tensor.view(work.b_3, 0, 0);
    const Weights R_0_to_3_turned = packed.R_0_to_3_turned.of(head, work.R_0_to_3_turned_panel);
    real* sum_h_R_3 = work.sum_R_0_to_3 + 3 * dims.D_row;
    real* sum_h_R_1 = work.sum_R_0_to_3 + 1 * dims.D_row;
    real* sum_h_R_0 = work.sum_R_0_to_3;
    real* sum_h_R_2 = work.sum_R_0_to_3 + 2 * dims.D_row;
    real* new_c = work.new_c;
    real* const h = work.h;
    real* const c = work.c;
    for (int row = 0; row < rows; ++row) {
        const Sequence& sequence = call.sequences[first_sequence + row];
        h_first.read(h + row * dims.D_row, sequence.state, 0);
        c_first.read(c + row * dims.D_row, sequence.state, 0);
    }
    team.wait();
    for (int64_t step = 0; step < steps; ++step) {
        rows = count;
        while (rows > 0 && call.sequences[first_sequence + rows - 1].steps <= step) --rows;
        const int64_t turn = team.turn(step);
        real* const h = work.h + turn * dims.batch_rows * dims.D_row;
        real* const next_h = work.h + team.turn(step + 1) * dims.batch_rows * dims.D_row;
        const real* x_0[ROWS + 1];
        const real* x_1[ROWS + 1];
        const real* x_2[ROWS + 1];
        const real* x_3[ROWS + 1];
        real* out[ROWS + 1];
        const int64_t ahead = call.reverse ? -1 : 1;  // steps to the next one
        for (int row = 0; row < rows; ++row) {
            const Sequence& sequence = call.sequences[first_sequence + row];
            const int64_t batch = sequence.batch, time = sequence.at(step, call.reverse);
            x_0[row] = x_0_tensor.view(work.x_0 + row * dims.D_row, batch, time, ahead);
            x_1[row] = x_1_tensor.view(work.x_1 + row * dims.D_row, batch, time, ahead);
            x_2[row] = x_2_tensor.view(work.x_2 + row * dims.D_row, batch, time, ahead);
            x_3[row] = x_3_tensor.view(work.x_3 + row * dims.D_row, batch, time, ahead);
            out[row] = out_tensor.open(work.out + row * dims.D_row, batch, time);
        }
        x_0[rows] = x_0_tensor.after(x_0[0], ahead);
        x_1[rows] = x_1_tensor.after(x_1[0], ahead);
        x_2[rows] = x_2_tensor.after(x_2[0], ahead);
        x_3[rows] = x_3_tensor.after(x_3[0], ahead);
        out[rows] = out_tensor.after(out[0], ahead);
        for (int row = 0; row < rows; ++row) {
            const Sequence& sequence = call.sequences[first_sequence + row];
            const int64_t batch = sequence.batch, time = sequence.at(step, call.reverse);
            if (call.resets(sequence, time)) {
                fill(h + row * dims.D_row, own_D, real(0));
                fill(c + row * dims.D_row, own_D, real(0));
            }
        }

        team.wait();
        contract(sum_h_R_0, 4 * dims.D_row, h, dims.D_row, R_0_to_3_turned, rows, own_D);
        for (int row = 0; row < rows; ++row) {
            for (int64_t at_d = own_D.first; at_d < own_D.last; at_d += LANES) {
                prefetch(x_1[row + 1] + at_d);
                prefetch(x_0[row + 1] + at_d);
                prefetch(x_2[row + 1] + at_d);
                const vec value = load(x_1[row] + at_d) + load(sum_h_R_1 + row * 4 * dims.D_row + at_d) + load(b_1 + at_d);
                const vec value_2 = load(x_0[row] + at_d) + load(sum_h_R_0 + row * 4 * dims.D_row + at_d) + load(b_0 + at_d);
                const vec value_3 = load(x_2[row] + at_d) + load(sum_h_R_2 + row * 4 * dims.D_row + at_d) + load(b_2 + at_d);
                const vec value_4 = rk_sigmoid(value) * load(c + row * dims.D_row + at_d) + rk_sigmoid(value_2) * rk_tanh(value_3);
                store(new_c + row * dims.D_row + at_d, value_4);
            }
            for (int64_t at_d = own_D.first; at_d < own_D.last; at_d += LANES) {
                prefetch(x_3[row + 1] + at_d);
                prefetch(out[row + 1] + at_d);
                const vec value_5 = load(x_3[row] + at_d) + load(sum_h_R_3 + row * 4 * dims.D_row + at_d) + load(b_3 + at_d);
                const vec new_c_at_d = load(new_c + row * dims.D_row + at_d);
                const vec value_6 = rk_sigmoid(value_5) * rk_tanh(new_c_at_d);
                store(next_h + row * dims.D_row + at_d, value_6);
                store(c + row * dims.D_row + at_d, new_c_at_d);
                store(out[row] + at_d, value_6);
            }
        }
        for (int row = 0; row < rows; ++row) {
            const Sequence& sequence = call.sequences[first_sequence + row];
            const int64_t batch = sequence.batch, time = sequence.at(step, call.reverse);
            out_tensor.close(out[row], batch, time);
        }
    }
    for (int row = 0; row < count; ++row) {
        const Sequence& sequence = call.sequences[first_sequence + row];
        real* const h = work.h + team.turn(sequence.steps) * dims.batch_rows * dims.D_row;
        h_last.write(sequence.state, 0, h + row * dims.D_row);
        c_last.write(sequence.state, 0, c + row * dims.D_row);
    }
}
