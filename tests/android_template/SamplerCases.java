import dev.alc.engine.LogitsException;
import dev.alc.engine.SamplingOptions;
import dev.alc.engine.TokenSet;
import dev.alc.engine.TopPSampler;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.FloatBuffer;
import java.util.HashMap;
import java.util.Map;

/**
 * Says what the Kotlin sampler makes of logits and options, for a test in Python: for each case
 * on standard input its distribution and some draws on standard output, both in binary.
 */
public final class SamplerCases {
    public static void main(String[] arguments) throws IOException {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in, 1 << 16));
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16));
        for (int count = in.readInt(); count > 0; count--) answer(in, out);
        out.flush();
    }

    private static void answer(DataInputStream in, DataOutputStream out) throws IOException {
        float[] logits = new float[in.readInt()];
        for (int id = 0; id < logits.length; id++) logits[id] = in.readFloat();
        int[] prompt = ids(in);
        int[] answer = ids(in);
        TokenSet allowed = null;
        if (in.readBoolean()) {
            allowed = new TokenSet(logits.length);
            for (int id : ids(in)) allowed.add(id);
        }
        TopPSampler sampler = new TopPSampler(options(in), logits.length);
        for (int token : prompt) sampler.prompt(token);
        for (int token : answer) sampler.accept(token);
        FloatBuffer source = FloatBuffer.wrap(logits);
        int draws = in.readInt();
        try {
            Map<Integer, Double> distribution = sampler.distribution(source, allowed);
            out.writeInt(distribution.size());
            for (int id : distribution.keySet()) out.writeInt(id);
            for (double probability : distribution.values()) out.writeDouble(probability);
            for (int draw = 0; draw < draws; draw++) out.writeInt(sampler.sample(source, allowed));
        } catch (LogitsException nothingLeft) {
            out.writeInt(0);
        }
    }

    private static SamplingOptions options(DataInputStream in) throws IOException {
        float temperature = in.readFloat();
        float topP = in.readFloat();
        int topK = in.readInt();
        float minP = in.readFloat();
        float typicalP = in.readFloat();
        float repetition = in.readFloat();
        float frequency = in.readFloat();
        float presence = in.readFloat();
        Map<Integer, Float> bias = new HashMap<>();
        for (int id : ids(in)) bias.put(id, in.readFloat());
        long seed = in.readLong();
        return new SamplingOptions(
            temperature, topP, topK, minP, typicalP, repetition, frequency, presence, bias, seed);
    }

    private static int[] ids(DataInputStream in) throws IOException {
        int[] result = new int[in.readInt()];
        for (int at = 0; at < result.length; at++) result[at] = in.readInt();
        return result;
    }
}
