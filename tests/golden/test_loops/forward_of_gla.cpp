void run_task(const Call& call, const Sizes& sizes, const Work& work, int64_t unit, int64_t head, int64_t group, int64_t tile) {
    const int64_t first_column = tile * V_TILE;
    const bool first_columns = tile == 0;  // this task is in charge of what has no columns
    const Dims dims(call, sizes, first_column);
    const int64_t first_sequence = unit * call.rows;
    const Sequence& sequence = call.sequences[first_sequence];
    const int64_t steps = call.sequences[first_sequence].steps;

    // The caller's tensors.
    const Array q_tensor(call.tensors[0], head, group, true, {{0, dims.K, 0}}, dims.K_row);
    const Array k_tensor(call.tensors[1], head, group, true, {{0, dims.K, 0}}, dims.K_row);
    const Array v_tensor(call.tensors[2], head, group, true, {{0, dims.V, first_column}}, V_TILE);
    const Array g_tensor(call.tensors[3], head, group, true, {{0, dims.K, 0}}, dims.K_row);
    const Array out_tensor(call.tensors[4], head, group, true, {{0, dims.V, first_column}}, V_TILE);
    const Array S_first(call.tensors[5], head, group, true, {{0, dims.K, 0}, {1, dims.V, first_column}}, V_TILE);
    const Array S_last(call.tensors[6], head, group, true, {{0, dims.K, 0}, {1, dims.V, first_column}}, V_TILE);
    const real scale = real(call.scalars[0]);

    real* sum_q_g_S_etc = work.sum_q_g_S_etc;
    real* exp_g = work.exp_g;
    real* sum_next_q_next_g_g_etc = work.sum_next_q_next_g_g_etc;
    real* exp_next_g = work.exp_next_g;
    real* const S = work.S;
    S_first.read(S, sequence.state, 0);
    const int64_t units = call.units();
    real* saved = call.saved ? call.saved + ((head * tile_count(call, sizes) + tile) * (call.steps_before[units] / call.block + units) +
                                             call.steps_before[unit] / call.block + unit) * state_size(Dims(call, sizes, 0))
                             : nullptr;
    for (int64_t step = 0; step < steps; ++step) {
        const int64_t batch = sequence.batch, time = sequence.at(step, call.reverse);
        const real* q = q_tensor.view(work.q, batch, time);
        const real* k = k_tensor.view(work.k, batch, time);
        const real* v = v_tensor.view(work.v, batch, time);
        const real* g = g_tensor.view(work.g, batch, time);
        real* out = out_tensor.open(work.out, batch, time);
        if (step + AHEAD < steps) {
            const int64_t later = sequence.at(step + AHEAD, call.reverse);
            q_tensor.fetch(batch, later);
            k_tensor.fetch(batch, later);
            v_tensor.fetch(batch, later);
            g_tensor.fetch(batch, later);
            out_tensor.fetch(batch, later);
        }
        if (call.resets(sequence, time)) {
            fill(S, dims.K * V_TILE, real(0));
        }
        if (saved && step % call.block == 0) {
            Arena kept(saved);
            stream_copy(kept.take(dims.K * V_TILE), S, dims.K * V_TILE);
            saved += kept.used;
        }

        // Two steps share a walk over the state, unless something happens to it between them.
        if (step + 1 < steps && !call.resets(sequence, sequence.at(step + 1, call.reverse)) && !(saved && (step + 1) % call.block == 0)) {
            ++step;
            const int64_t next_time = sequence.at(step, call.reverse);
            const real* next_g = g_tensor.view(work.next_g, batch, next_time);
            const real* next_k = k_tensor.view(work.next_k, batch, next_time);
            const real* next_q = q_tensor.view(work.next_q, batch, next_time);
            const real* next_v = v_tensor.view(work.next_v, batch, next_time);
            real* next_out = out_tensor.open(work.next_out, batch, next_time);
            if (step + AHEAD < steps) {
                const int64_t later = sequence.at(step + AHEAD, call.reverse);
                q_tensor.fetch(batch, later);
                k_tensor.fetch(batch, later);
                v_tensor.fetch(batch, later);
                g_tensor.fetch(batch, later);
                out_tensor.fetch(batch, later);
            }
            for (int64_t at_k = 0; at_k < dims.K_row; at_k += LANES) {
                store(exp_g + at_k, rk_exp(load(g + at_k)));
                store(exp_next_g + at_k, rk_exp(load(next_g + at_k)));
            }
            vec v_held[V_TILE / LANES];
            for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) v_held[at_v / LANES] = load(v + at_v);
            vec next_v_held[V_TILE / LANES];
            for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) next_v_held[at_v / LANES] = load(next_v + at_v);
            vec sum_q_g_S_etc_sum[V_TILE / LANES];
            for (vec& lane : sum_q_g_S_etc_sum) lane = all(0);
            vec sum_next_q_next_g_g_etc_sum[V_TILE / LANES];
            for (vec& lane : sum_next_q_next_g_g_etc_sum) lane = all(0);
            for (int64_t at_k = 0; at_k < dims.K; ++at_k) {
                const real q_at_k = q[at_k];
                const real exp_g_at_k = exp_g[at_k];
                const real k_at_k = k[at_k];
                const real next_q_at_k = next_q[at_k];
                const real exp_next_g_at_k = exp_next_g[at_k];
                const real next_k_at_k = next_k[at_k];
                for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) {
                    const vec S_at_k_v = load(S + at_k * V_TILE + at_v);
                    const vec value = exp_g_at_k * S_at_k_v + k_at_k * v_held[at_v / LANES];
                    const vec value_2 = exp_next_g_at_k * value + next_k_at_k * next_v_held[at_v / LANES];
                    sum_q_g_S_etc_sum[at_v / LANES] += q_at_k * value;
                    sum_next_q_next_g_g_etc_sum[at_v / LANES] += next_q_at_k * value_2;
                    store(S + at_k * V_TILE + at_v, value_2);
                }
            }
            for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) store(sum_q_g_S_etc + at_v, sum_q_g_S_etc_sum[at_v / LANES]);
            for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) store(sum_next_q_next_g_g_etc + at_v, sum_next_q_next_g_g_etc_sum[at_v / LANES]);
            for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) {
                store(out + at_v, scale * load(sum_q_g_S_etc + at_v));
                store(next_out + at_v, scale * load(sum_next_q_next_g_g_etc + at_v));
            }
            out_tensor.close(out, batch, time);
            out_tensor.close(next_out, batch, next_time);
            continue;
        }
        for (int64_t at_k = 0; at_k < dims.K_row; at_k += LANES) {
            store(exp_g + at_k, rk_exp(load(g + at_k)));
        }
        vec v_held[V_TILE / LANES];
        for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) v_held[at_v / LANES] = load(v + at_v);
        vec sum_q_g_S_etc_sum[V_TILE / LANES];
        for (vec& lane : sum_q_g_S_etc_sum) lane = all(0);
        for (int64_t at_k = 0; at_k < dims.K; ++at_k) {
            const real q_at_k = q[at_k];
            const real exp_g_at_k = exp_g[at_k];
            const real k_at_k = k[at_k];
            for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) {
                const vec S_at_k_v = load(S + at_k * V_TILE + at_v);
                const vec value = exp_g_at_k * S_at_k_v + k_at_k * v_held[at_v / LANES];
                sum_q_g_S_etc_sum[at_v / LANES] += q_at_k * value;
                store(S + at_k * V_TILE + at_v, value);
            }
        }
        for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) store(sum_q_g_S_etc + at_v, sum_q_g_S_etc_sum[at_v / LANES]);
        for (int64_t at_v = 0; at_v < V_TILE; at_v += LANES) {
            store(out + at_v, scale * load(sum_q_g_S_etc + at_v));
        }
        out_tensor.close(out, batch, time);
    }
    stream_fence();
    S_last.write(sequence.state, 0, S);
}
