# CPU image; for a GPU add `--gpus all` to docker run: the pinned torch carries CUDA already.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/vidkd
COPY requirements.txt ./
RUN pip install --no-cache-dir uv \
    && uv pip install --system --no-cache --require-hashes -r requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY vidkd ./vidkd
COPY models ./models
COPY pipelines ./pipelines
RUN uv pip install --system --no-cache --no-deps .

# Caches and weights live in a volume, so that they outlast the container.
ENV VIDKD_MODELS=/data/models
VOLUME /data
WORKDIR /data
ENTRYPOINT ["vidkd"]
CMD ["--help"]
